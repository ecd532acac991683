"""Check that a run can be resumed: the settings and inputs are the same, and no process owns the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.checkpoint_manifest import newest_state
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.private_values import SECRET
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.spec.run_paths import RunPaths
from vime_runtime.spec.safetensors_header import header_bytes

from vimectl.runs.run_directory import RunDirectory
from vimectl.util.toml import validate

# Keys and tables that do not change the results of a run. The number of steps is checked separately.
FREE_KEYS: dict[str, Any] = {
    "algorithm": {"max_logprob_difference"},
    "checkpoint": True,
    "cluster": {"hang_timeout", "restarts", "shutdown_timeout"},
    "data": {"max_reward_failures", "reward_isolated", "reward_processes", "reward_timeout"},
    "memory": True,
    "modes": True,
    "recipe": {"default_mode", "description"},
    "train": {"epochs"},
    "watch": True,
}

OTHER_DIRECTORY = "use the values of the run, or start a new run with the new settings in another directory"
DAMAGED = "the run directory is damaged: start a new run"


def settings(recipe: Recipe, private: Collection[str] = ()) -> dict[str, Any]:
    """Return every dotted key of a recipe that the results of a run depend on, with its value.

    Of the variables in ``private`` it has no value: a secret may be another one when a run is resumed.
    """
    found = dict(_flatten(recipe.model_dump(mode="json", exclude=FREE_KEYS), ""))
    return found | {f"env.{name}": SECRET for name in private if name in recipe.env}


def settings_digest(recipe: Recipe, private: Collection[str] = ()) -> str:
    """Return the SHA-256 of ``settings``. A training state is only loaded by a run with the same digest."""
    return hashlib.sha256(json.dumps(settings(recipe, private), sort_keys=True).encode()).hexdigest()


def check_resumable(
    run_dir: Path | None, recipe: Recipe, steps: int | None, private: Collection[str] = ()
) -> None:
    """Check that this recipe can resume the run in a directory, up to ``steps`` steps, if that is known.

    Raises:
        UsageError: there is no run directory, the run is still running, its settings differ, its number of
            steps differs although the learning rate depends on it, or it is finished and has no state.
    """
    if run_dir is None or not RunPaths(run_dir).run_file.is_file():
        found = "no --run-dir was given" if run_dir is None else f"{run_dir} is not a run directory"
        raise UsageError(f"--resume: {found}", "name the directory of the run: --run-dir DIR")
    run = RunDirectory(run_dir)
    if (owner := run.running_owner) or run.is_locked:
        where = f"process {owner.pid}" if owner else "of another user or in another container"
        raise UsageError(f"the run in {run_dir} is running: {where}", "wait for it or stop it first")
    run_file = RunPaths(run_dir).run_file
    stored = validate(RunConfig, read_json(run_file, DAMAGED), str(run_file))
    private = {*private, *stored.private}
    before, now = settings(stored.recipe, private), settings(recipe, private)
    differences = [
        f"{key}: {_show(before, key)} -> {_show(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differences:
        message = "\n    ".join([f"{run_dir} is a run with other settings:", *differences])
        raise UsageError(message, OTHER_DIRECTORY)
    if steps is None:
        return
    if steps != stored.steps and recipe.optimizer.decay != "constant":
        raise UsageError(
            f"{run_dir} is a run of {stored.steps} steps, but {steps} are requested; with optimizer.decay = "
            f"{recipe.optimizer.decay!r} every step's learning rate depends on the number of steps",
            OTHER_DIRECTORY,
        )
    if 0 < finished_steps(run_dir) < steps and not newest_state(RunPaths(run_dir).checkpoints):
        raise UsageError(
            f"{run_dir} is a finished run without a training state to resume from",
            "start a new run; with checkpoint.every above 0 its last state is kept",
        )


def finished_steps(run_dir: Path) -> int:
    """Return the number of steps of a finished run; 0 for a run that failed or still runs."""
    path = RunPaths(run_dir).summary
    summary = read_json(path, DAMAGED) if path.is_file() else {}
    return int(summary["steps"]) if summary.get("ok") else 0


def input_digests(recipe: Recipe) -> dict[str, str]:
    """Return SHA-256 digests that identify model and data: of data files, config.json and tensor headers.

    The weights are not read: that takes minutes for a large model, and the trained weights are in the
    training state.
    """
    model = Path(recipe.model.path)
    found = {"model.path/config.json": sha256_file(model / "config.json")}
    for path in sorted(model.glob("*.safetensors")):
        found[f"model.path/{path.name}"] = hashlib.sha256(header_bytes(path)).hexdigest()
    sets = {f"evaluation.sets.{name}.path": one.path for name, one in recipe.evaluation.sets.items()}
    for key, text in {"data.path": recipe.data.path, **sets}.items():
        if Path(text).is_file():
            found[key] = sha256_file(Path(text))
    return found


def check_inputs_unchanged(run_dir: Path, recipe: Recipe) -> None:
    """Check that model and data are those that the run began with.

    Raises:
        UsageError: naming those that have changed.
    """
    stored, now = read_json(RunPaths(run_dir).inputs, DAMAGED), input_digests(recipe)
    changed = sorted(key for key in stored.keys() | now.keys() if stored.get(key) != now.get(key))
    if changed:
        raise UsageError(
            f"changed since the run in {run_dir} began: {', '.join(changed)}",
            "restore the files, or start a new run",
        )


def _flatten(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _show(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "nothing"
