"""tms: the torch_memory_saver library that a trainer would load; the same code as `vimectl tms verify`."""

from __future__ import annotations

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.errors import VimectlError
from vimectl.stack import Stack


def checks(stack: Stack) -> list[Check]:
    why = "a library built for another accelerator, or one that ignores pause, corrupts the run"
    return [Check("tms.library", why, _library)]


def _library(subject: Subject) -> Outcome:
    from vimectl import memory_saver

    wanted = memory_saver.wanted_backend(subject.stack)
    if wanted is None:
        return skipped("the trainer's memory is paused without torch_memory_saver on the CPU")
    try:
        builds = memory_saver.judge_installed(subject.host, subject.stack)
    except VimectlError as e:  # the user's file of known builds
        return Outcome("fail", e.message, f"known-good {wanted} builds", e.hint)
    if not builds:
        return Outcome(
            "fail", "torch_memory_saver is not installed", f"a known-good {wanted} build", "vimectl tms list"
        )
    loaded = [build for build in builds if build.loads]
    found = "; ".join(f"{build.path}: {build.verdict}: {build.note}" for build in loaded or builds)
    return judged(
        memory_saver.good(builds, subject.stack),
        found if loaded else f"none would be loaded; {found}",
        f"known-good {wanted} builds",
        f"vimectl tms verify --stack {subject.stack.name}, then replace what it names",
    )
