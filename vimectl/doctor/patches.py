"""patches: the state of each patch series the stack needs; the same code as `vimectl patch status`."""

from __future__ import annotations

from functools import partial

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.errors import VimectlError
from vimectl.stack import Stack


def checks(stack: Stack) -> list[Check]:
    return [
        Check(
            f"patches.{package}",
            f"without the series {package} {version} the colocated job does not run",
            partial(_state, package),
        )
        for package, version in stack.patches.items()
    ]


def _state(package: str, subject: Subject) -> Outcome:
    from vimectl import patching

    if not subject.host.is_here:
        return skipped("examine it with: vimectl patch status --target DIR")
    name = subject.stack.name
    try:
        states = [target.state for target in patching.status(name, packages=[package])]
    except VimectlError as e:
        return Outcome("fail", e.message, "applied", e.hint)
    fix = f"vimectl patch apply --stack {name}"
    if "drifted" in states:
        fix = f"vimectl patch diff {package} --stack {name}  (somebody changed these files)"
    return judged(states == ["applied"], ", ".join(states), "applied", fix)
