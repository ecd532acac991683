"""Whether this machine can run a recipe: what the doctor says, the patches, the memory saver's library."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from vime_runtime.spec.errors import MissingRequirement, VimeError
from vime_runtime.spec.recipe import Recipe

from vimectl import doctor
from vimectl import patches as patching
from vimectl.env import memory_saver
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host

# A run that was ended is gone by then, whatever it died of; what is there still has been left behind.
ENDING_SECONDS = 15.0


@dataclass(frozen=True)
class Preflight:
    """The doctor's report, and in detail the patch targets and library builds that it judged.

    ``patches`` is None when a package that is to be patched is not installed, ``tms`` when the stack's
    trainer is paused without that library.
    """

    recipe: Recipe
    doctor: doctor.Report
    patches: list[patching.TargetStatus] | None
    tms: list[memory_saver.Build] | None

    @property
    def only_lacks_patches(self) -> bool:
        """Whether applying patches is all there is to mend, and can be done."""
        return (
            bool(self.doctor.failures)
            and all(finding.group == "patches" for finding in self.doctor.failures)
            and all(target.state in ("applied", "pristine", "partial") for target in self.patches or ())
        )

    @property
    def meets_an_ending(self) -> bool:
        """Whether processes are here whose run is over: they may be just about to end."""
        return any(finding.id == "leftovers.processes" for finding in self.doctor.failures)

    def require(self) -> None:
        """Raise MissingRequirement that lists every failed check and the command that mends the first."""
        if self.doctor.ok:
            return
        name = self.recipe.recipe.name
        lines = [f"this machine cannot run {name}:"]
        lines += [f"  {f.id}: {f.found}; needed: {f.expected}" for f in self.doctor.failures]
        more = f"vimectl doctor --recipe {name} says why and how for each"
        raise MissingRequirement("\n".join(lines), f"{self.doctor.failures[0].fix}\n       {more}")

    def as_json(self) -> dict[str, Any]:
        """The value of ``preflight`` in the dry run's document."""
        return {
            "ok": self.doctor.ok,
            "doctor": self.doctor.as_json(),
            "patches": None if self.patches is None else [target.as_json() for target in self.patches],
            "tms": None if self.tms is None else [asdict(build) for build in self.tms],
        }


def examine(recipe: Recipe, host: Host) -> Preflight:
    """Examine the machine for a recipe. Changes nothing; raises UsageError for a stack that is not known."""
    wanted = load_stack(recipe.recipe.stack)
    report = doctor.run_checks(host, wanted, recipe, without=doctor.INPUTS)
    needs_library = memory_saver.wanted_backend(wanted) is not None
    builds = memory_saver.judge_installed(host, wanted) if needs_library else None
    return Preflight(recipe, report, _patches(recipe), builds)


def after_endings(found: Preflight, host: Host) -> Preflight:
    """Examine it again until no run is just ending here, or for as long as an ending takes."""
    deadline = time.monotonic() + ENDING_SECONDS
    while found.meets_an_ending and time.monotonic() < deadline:
        time.sleep(0.5)
        found = examine(found.recipe, host)
    return found


def apply_patches(preflight: Preflight) -> None:
    """Apply what is missing, all or nothing."""
    patching.change("apply", preflight.patches or [])


def _patches(recipe: Recipe) -> list[patching.TargetStatus] | None:
    try:
        return patching.status(recipe.recipe.stack)
    except VimeError:
        return None  # the doctor's finding says which package is missing
