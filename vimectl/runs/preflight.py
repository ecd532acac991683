"""Check that this machine can run a recipe: the doctor's report, the patches, the memory saver library."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from vime_runtime.spec.errors import MissingRequirement, VimeError
from vime_runtime.spec.recipe import Recipe

from vimectl.doctor.check import CheckResult
from vimectl.doctor.checks.recipe import INPUTS
from vimectl.doctor.nodes import examine_nodes
from vimectl.doctor.runner import DoctorReport, run_checks
from vimectl.env.memory_saver.verify import SaverBuild, required_backend, verify_installed
from vimectl.patches import command
from vimectl.patches.state import TargetStatus
from vimectl.runs.leftovers import LEFTOVER_TIMEOUT
from vimectl.stacks.catalog import load_stack, stack_for_recipe
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host


@dataclass(frozen=True)
class Preflight:
    """The doctor's report for a recipe, with its patch targets and memory saver libraries.

    ``patches`` is None if a package to patch is not installed, ``tms`` if the stack does not use that
    library.
    """

    recipe: Recipe
    doctor: DoctorReport
    patches: list[TargetStatus] | None
    tms: list[SaverBuild] | None

    @property
    def only_patches_missing(self) -> bool:
        """True if missing patches are the only failures, and they can be applied.

        Applying them finishes an interrupted change of this user first.
        """
        return (
            bool(self.doctor.failures)
            and all(check.group == "patches" for check in self.doctor.failures)
            and all(
                target.state in ("applied", "pristine", "partial")
                and (target.unfinished is None or target.unfinished.own)
                for target in self.patches or ()
            )
        )

    @property
    def has_leftover_processes(self) -> bool:
        """True if there are processes of a run that has ended; they may be about to exit."""
        return any(check.id == "leftovers.processes" for check in self.doctor.failures)

    def require(self) -> None:
        """Raise MissingRequirement with every failed check and the command that fixes the first."""
        if self.doctor.ok:
            return
        name = self.recipe.recipe.name
        lines = [f"this machine cannot run {name}:"]
        lines += [f"  {f.id}: {f.found}; needed: {f.expected}" for f in self.doctor.failures]
        more = f"`vimectl doctor --recipe {name}` explains each check and how to fix it"
        raise MissingRequirement("\n".join(lines), f"{self.doctor.failures[0].fix}\n       {more}")

    def as_json(self) -> dict[str, Any]:
        """Return the value of ``preflight`` in the document of the dry run."""
        return {
            "ok": self.doctor.ok,
            "doctor": self.doctor.as_json(),
            "patches": None if self.patches is None else [target.as_json() for target in self.patches],
            "tms": None if self.tms is None else [asdict(build) for build in self.tms],
        }


def examine(recipe: Recipe, host: Host, address: str | None = None) -> Preflight:
    """Check the machine for a recipe, with the default stack if that extends the one of the recipe.

    For a recipe of several nodes all nodes of the Ray cluster at ``address`` are checked and compared too.
    Changes nothing. Raises UsageError for an unknown stack.
    """
    stack = load_stack(stack_for_recipe(recipe.recipe.stack))
    report = run_checks(host, stack, recipe, without=INPUTS)
    if address and recipe.cluster.nodes > 1:
        report = _with_nodes(report, recipe, address)
    builds = None if required_backend(stack) is None else verify_installed(host, stack)
    return Preflight(recipe, report, _patches(stack), builds)


def wait_for_leftovers(preflight: Preflight, host: Host, address: str | None = None) -> Preflight:
    """Check again until the processes of an ended run have exited, at most LEFTOVER_TIMEOUT seconds."""
    deadline = time.monotonic() + LEFTOVER_TIMEOUT
    while preflight.has_leftover_processes and time.monotonic() < deadline:
        time.sleep(0.5)
        preflight = examine(preflight.recipe, host)
    return examine(preflight.recipe, host, address) if address else preflight


def _with_nodes(report: DoctorReport, recipe: Recipe, address: str) -> DoctorReport:
    try:
        return examine_nodes(report, address, recipe)
    except MissingRequirement as e:
        failure = CheckResult("fail", e.message, "a Ray cluster", e.hint, id="nodes.answer")
        return replace(report, results=(*report.results, failure))


def _patches(stack: Stack) -> list[TargetStatus] | None:
    try:
        return command.status(stack.argument)
    except VimeError:
        return None  # the doctor's report says which package is missing
