"""tms: the torch_memory_saver library that a trainer would load; the same code as `vimectl tms verify`."""

from __future__ import annotations

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stack import Stack


def checks(stack: Stack) -> list[Check]:
    why = "a library built for another accelerator, or one that ignores pause, corrupts the run"
    return [Check("tms.library", why, _library)]


def _library(subject: Subject) -> Outcome:
    from vimectl import memory_saver

    wanted = memory_saver.wanted_backend(subject.stack)
    if wanted is None:
        return skipped("the trainer's memory is paused without torch_memory_saver on the CPU")
    builds = memory_saver.judge_installed(subject.host, subject.stack)
    if not builds:
        return Outcome(
            "fail", "torch_memory_saver is not installed", f"a known-good {wanted} build", "vimectl tms list"
        )
    found = "; ".join(f"{build.path}: {build.verdict}" for build in builds)
    good = all(build.verdict == "known-good" for build in builds)
    return judged(
        good, found, f"known-good {wanted} builds", "vimectl tms verify, then replace what it names"
    )
