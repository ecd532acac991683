"""Plan a run before anything is started: ``--dry-run`` prints the plan, the launch executes it."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.private_values import SECRET, hide
from vime_runtime.spec.process_roles import ROLES, Role
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.spec.run_paths import COUNTS_FILE, RUNS, SCRATCH_PREFIX, RunPaths

from vimectl.recipes.environment import Setting, environment
from vimectl.recipes.resolve import ResolvedRecipe
from vimectl.runs import resume as resuming
from vimectl.util import ray_address
from vimectl.util.host import Host
from vimectl.util.scratch_directory import scratch_parent
from vimectl.util.secrets import redact_document

# NAME_MAX of Linux is 255. Partial files and folders next to the run directory have longer names.
_MAX_NAME = 230


@dataclass(frozen=True)
class RunPlan:
    """One run: the recipe, its folders, and the environment of every process. A plan changes nothing.

    Attributes:
        steps: None until the problems have been read, if ``train.epochs`` gives the length.
        address: "host:port" of an existing Ray cluster; None: a private cluster.
        problems: the folder of problems to move into the run directory; None if it has them.
    """

    resolved: ResolvedRecipe
    run_dir: Path
    scratch_dir: Path
    settings: dict[Role, dict[str, Setting]]
    steps: int | None
    address: str | None = None
    resume: bool = False
    problems: Path | None = None

    @property
    def environment(self) -> dict[Role, dict[str, str]]:
        """The variables of each role."""
        return {
            role: {name: setting.value for name, setting in settings.items()}
            for role, settings in self.settings.items()
        }

    @property
    def shown_settings(self) -> dict[Role, dict[str, Setting]]:
        """The variables of each role with the reasons, without private values."""
        private = self.resolved.private
        return {
            role: {
                name: setting.model_copy(update={"value": SECRET}) if name in private else setting
                for name, setting in settings.items()
            }
            for role, settings in self.settings.items()
        }

    @property
    def length(self) -> str:
        """The length of the run, as text."""
        epochs = self.resolved.recipe.train.epochs
        return f"{epochs} epochs" if self.steps is None else f"{self.steps} steps"

    def run_config(self) -> RunConfig:
        """Return the content of ``resolved.json``. Raises ValueError while ``steps`` is not known."""
        if self.steps is None:
            raise ValueError("the problems have not been counted")
        return RunConfig(
            recipe=self.resolved.recipe,
            overrides=list(self.resolved.assignments),
            private=sorted(self.resolved.private),
            mode=self.resolved.mode,
            steps=self.steps,
            settings_sha256=resuming.settings_digest(self.resolved.recipe, self.resolved.private),
            run_dir=str(self.run_dir),
            scratch_dir=str(self.scratch_dir),
            address=self.address,
            environment=self.environment,
            required={
                role: {name: setting.required for name, setting in settings.items() if setting.required}
                for role, settings in self.settings.items()
            },
        )


def runtime_command(run_dir: Path) -> list[str]:
    """Return the command that starts the runtime of a run."""
    return [sys.executable, "-m", "vime_runtime", str(RunPaths(run_dir).run_file)]


def make_plan(
    resolved: ResolvedRecipe,
    host: Host,
    run_dir: Path | None = None,
    address: str | None = None,
    resume: bool = False,
) -> RunPlan:
    """Decide folders, Ray cluster and environments of a run.

    Args:
        address: an existing Ray cluster, as in ``ray_address.resolve``; None: a private cluster.

    Raises:
        UsageError: the run directory is not empty or, with ``resume``, does not hold a run that can be
            resumed; the address is invalid or missing for several nodes.
    """
    steps = resolved.steps
    if resume:
        if steps is None and run_dir and RunPaths(run_dir).problems.is_dir():
            steps = count_steps(resolved, RunPaths(run_dir).problems)
        resuming.check_resumable(run_dir, resolved.recipe, steps, resolved.private)
    if address is not None:
        address = ray_address.resolve(host, address)
    elif resolved.recipe.cluster.nodes > 1:
        raise UsageError(
            f"'cluster.nodes': {resolved.recipe.cluster.nodes}, but a private Ray cluster has one node",
            "start Ray on every node, on one of them with `ray start --head`, and give its --address",
        )
    name = f"{resolved.recipe.recipe.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    run_dir = (run_dir or RUNS / name).absolute()
    if len(os.fsencode(run_dir.name)) > _MAX_NAME:
        message = f"the name of the run directory has more than {_MAX_NAME} bytes: {run_dir.name}"
        raise UsageError(message, "name another with --run-dir")
    if not resume and run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UsageError(f"the run directory {run_dir} is not empty", "name another with --run-dir")
    scratch_dir = _new_scratch_dir()
    settings = {
        role: environment(resolved.recipe, role, host, scratch_dir, private_cluster=address is None)
        for role in ROLES
    }
    return RunPlan(resolved, run_dir, scratch_dir, settings, steps, address, resume)


def count_steps(resolved: ResolvedRecipe, problems: Path) -> int:
    """Return the number of steps of a run with the problems in a folder.

    Raises:
        UsageError: the folder is damaged.
    """
    if resolved.steps is not None:
        return resolved.steps
    epochs, prompts = resolved.recipe.train.epochs, resolved.recipe.algorithm.prompts_per_step
    assert epochs is not None  # else the mode gives the steps
    counts = read_json(problems / COUNTS_FILE, resuming.DAMAGED)
    return math.ceil(epochs * int(counts["train"]["problems"]) / prompts)


def write_run_directory(plan: RunPlan, doctor: dict[str, Any]) -> None:
    """Create the run directory with the files that describe the run and the machine.

    Raises:
        UsageError: with ``resume``, when model or data have changed since the run began.
    """
    paths = RunPaths(plan.run_dir)
    if plan.resume:
        resuming.check_inputs_unchanged(plan.run_dir, plan.resolved.recipe)
        paths.summary.unlink(missing_ok=True)  # of the earlier attempt
    for folder in (paths.logs, paths.checkpoints):
        folder.mkdir(parents=True, exist_ok=plan.resume)
    if plan.problems:
        shutil.move(plan.problems, paths.problems)
    paths.recipe.write_text(_recipe_text(plan.resolved), encoding="utf-8")
    paths.run_file.write_text(plan.run_config().dump(), encoding="utf-8")
    reasons = {
        role: {name: setting.model_dump() for name, setting in settings.items()}
        for role, settings in plan.shown_settings.items()
    }
    for path, document in (
        (paths.environment, reasons),
        (paths.doctor, redact_document(doctor)),
        (paths.inputs, resuming.input_digests(plan.resolved.recipe)),
    ):
        text = json.dumps(document, indent=2, default=str) + "\n"
        path.write_text(hide(text, plan.resolved.private), encoding="utf-8")


def _recipe_text(resolved: ResolvedRecipe) -> str:
    """Return the text of the recipe file without private values."""
    text = resolved.source.read_text(encoding="utf-8")
    for name in resolved.private:
        line = re.compile(rf"^(\s*[\"']?{re.escape(name)}[\"']?\s*=).*$", re.MULTILINE)
        text = line.sub(rf'\1 "{SECRET}"', text)
    return hide(text, resolved.private)


def _new_scratch_dir() -> Path:
    """Return a unique path, short enough for the sockets below it."""
    return Path(scratch_parent(tempfile.gettempdir())) / (SCRATCH_PREFIX + secrets.token_hex(4))
