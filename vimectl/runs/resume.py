"""Whether a run directory can be gone on with: the same settings, the same inputs, and nobody in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.safetensors_header import header_bytes

from vimectl.runs import run_state
from vimectl.runs.run_state import RUN_FILE
from vimectl.util.toml import validate

INPUTS_FILE = "inputs.json"

# What does not change the results of a run. The length is looked at by itself.
FREE = (
    "checkpoint",
    "cluster.hang_timeout",
    "cluster.restarts",
    "cluster.shutdown_timeout",
    "memory",
    "modes",
    "recipe.default_mode",
    "recipe.description",
    "watch",
)

OTHER_DIRECTORY = "take the values of the run, or give the new settings a run directory of their own"


def settings(recipe: Recipe) -> dict[str, Any]:
    """Every dotted key of a recipe that its results depend on, and its value."""
    flat = dict(_flatten(recipe.model_dump(mode="json"), ""))
    return {key: value for key, value in flat.items() if not _is_free(key)}


def fingerprint(recipe: Recipe) -> str:
    """A digest of ``settings``: training states of another one are not of this run."""
    return hashlib.sha256(json.dumps(settings(recipe), sort_keys=True).encode()).hexdigest()


def differences(stored: Recipe, asked: Recipe) -> list[str]:
    """``key: stored value -> asked value`` for every key that matters and differs."""
    before, now = settings(stored), settings(asked)
    return [
        f"{key}: {_shown(before, key)} -> {_shown(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def check(run_dir: Path | None, recipe: Recipe, steps: int) -> None:
    """Check that a run directory can be gone on with by this recipe, ``steps`` long.

    Raises:
        UsageError: no run directory, a run still in it, other settings, or another length although the
            learning rate depends on it.
    """
    if run_dir is None or not (run_dir / RUN_FILE).is_file():
        found = "no --run-dir was given" if run_dir is None else f"{run_dir} holds no run"
        raise UsageError(f"--resume: {found}", "name the directory of the run: --run-dir DIR")
    if owner := run_state.living_owner(run_dir):
        raise UsageError(f"the run in {run_dir} goes on: process {owner.pid}", "wait for it or stop it first")
    stored = _read(run_dir / RUN_FILE)
    try:
        then, length = validate(Recipe, stored["recipe"], str(run_dir / RUN_FILE)), stored["steps"]
    except KeyError as e:
        raise UsageError(f"{run_dir / RUN_FILE} has no {e}", "start a new run") from e
    if differing := differences(then, recipe):
        raise UsageError(
            "\n    ".join([f"{run_dir} is a run with other settings:", *differing]), OTHER_DIRECTORY
        )
    if steps != length and recipe.optimizer.decay != "constant":
        raise UsageError(
            f"{run_dir} is a run of {length} steps, asked for are {steps}; "
            f"with optimizer.decay = {recipe.optimizer.decay!r} every step's learning rate depends on that",
            OTHER_DIRECTORY,
        )
    if 0 < finished_steps(run_dir) < steps and not any((run_dir / "checkpoints").glob("step-*")):
        raise UsageError(
            f"{run_dir} is a finished run that kept no training state to go on from",
            "start a new run; with checkpoint.every above 0 its last step is kept",
        )


def finished_steps(run_dir: Path) -> int:
    """How many steps a run came to that ended well; 0 when it did not, or goes on."""
    path = run_dir / "summary.json"
    summary = _read(path) if path.is_file() else {}
    return int(summary["steps"]) if summary.get("ok") else 0


def inputs(recipe: Recipe) -> dict[str, str]:
    """What identifies the files a run learns from: digests of the data, of config.json, of tensor headers.

    The weights themselves are not read: that takes minutes for a large model, and what training made of
    them is in the training state.
    """
    model = Path(recipe.model.path)
    found = {"model.path/config.json": sha256_file(model / "config.json")}
    for path in sorted(model.glob("*.safetensors")):
        found[f"model.path/{path.name}"] = hashlib.sha256(header_bytes(path)).hexdigest()
    for key, text in (("data.path", recipe.data.path), ("evaluation.path", recipe.evaluation.path)):
        if text and Path(text).is_file():
            found[key] = sha256_file(Path(text))
    return found


def check_inputs(run_dir: Path, recipe: Recipe) -> None:
    """Check that the files are those that the run in ``run_dir`` began with.

    Raises:
        UsageError: naming those that changed.
    """
    stored, now = _read(run_dir / INPUTS_FILE), inputs(recipe)
    changed = sorted(key for key in stored.keys() | now.keys() if stored.get(key) != now.get(key))
    if changed:
        raise UsageError(
            f"changed since the run in {run_dir} began: {', '.join(changed)}",
            "put the files back, or start a new run",
        )


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _flatten(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _shown(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "nothing"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UsageError(
            f"{path} cannot be read: {e}", "the run directory is damaged: start a new run"
        ) from e
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a JSON object", "the run directory is damaged: start a new run")
    return document
