"""tms: the torch_memory_saver library that a trainer would load; the same code as `vimectl tms verify`."""

from __future__ import annotations

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.doctor.subject_model import without_root
from vimectl.stacks.schema import Stack


def checks(stack: Stack) -> list[Check]:
    why = "a library built for another accelerator, or one that ignores pause, corrupts the run"
    return [
        Check("tms.library", why, _library),
        Check(
            "tms.identity",
            "eight digits of an MD5 identify a file among those that are known; they do not authenticate it",
            _identity,
        ),
    ]


def _library(subject: Subject) -> Outcome:
    from vimectl.env import memory_saver

    wanted = memory_saver.wanted_backend(subject.stack)
    if wanted is None:
        return skipped("the trainer's memory is paused without torch_memory_saver on the CPU")
    try:
        builds = memory_saver.judge_installed(subject.host, subject.stack)
    except VimeError as e:  # the user's file of known builds
        return Outcome("fail", e.message, f"known-good {wanted} builds", e.hint)
    if not builds:
        return Outcome(
            "fail", "torch_memory_saver is not installed", f"a known-good {wanted} build", "vimectl tms list"
        )
    loaded = [build for build in builds if build.loads]
    found = "; ".join(f"{build.path}: {build.verdict}: {build.note}" for build in loaded or builds)
    found = without_root(subject, found)
    return judged(
        memory_saver.good(builds, subject.stack),
        found if loaded else f"none would be loaded; {found}",
        f"known-good {wanted} builds",
        f"vimectl tms verify --stack {subject.stack.name}, then replace what it names",
    )


def _identity(subject: Subject) -> Outcome:
    from vimectl.env import memory_saver

    if memory_saver.wanted_backend(subject.stack) is None:
        return skipped("the trainer's memory is paused without torch_memory_saver on the CPU")
    try:
        builds = memory_saver.judge_installed(subject.host, subject.stack)
    except VimeError:
        return skipped("the known builds cannot be read (tms.library)")
    known = [build for build in builds if build.loads and build.verdict == "known-good"]
    if not known:
        return skipped("no library that would be loaded is known (tms.library)")
    return judged(
        all(build.match != "md5-prefix" for build in known),
        without_root(subject, "; ".join(f"{build.path}: known by {build.match}" for build in known)),
        "known by its whole digest",
        "get the file from where it was built, and record its digest: vimectl tms record FILE --note TEXT",
        "warn",
    )
