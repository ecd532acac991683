"""What a check is and what it says: found, expected, why it matters, and the command that mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from vime_runtime.spec.recipe import Recipe

from vimectl.stacks.installed import InstalledDistribution, distributions
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Subject:
    """What is examined: a machine, for a stack, and for a recipe when one is named."""

    host: Host
    stack: Stack
    recipe: Recipe | None = None

    @cached_property
    def installed(self) -> dict[str, list[InstalledDistribution]]:
        """What is installed, by canonical name; read once for all checks."""
        return distributions(self.host)


@dataclass(frozen=True)
class Outcome:
    """What one check read and concluded. ``found`` is what was really read, never an assumption."""

    status: Status
    found: str
    expected: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check with its id, its group and the rule it enforces."""

    id: str
    group: str
    status: Status
    found: str
    expected: str
    why: str
    fix: str


@dataclass(frozen=True)
class Check:
    """One check. ``id`` is ``<group>.<name>`` and stable; ``why`` is the rule it enforces.

    One with ``imports`` starts Python to import something, which takes seconds: it is made when asked for.
    """

    id: str
    why: str
    examine: Callable[[Subject], Outcome]
    imports: bool = False

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]

    def run(self, subject: Subject) -> Finding:
        return self.found(self.examine(subject))

    def found(self, outcome: Outcome) -> Finding:
        """The finding that this outcome of the check is."""
        return Finding(
            self.id, self.group, outcome.status, outcome.found, outcome.expected, self.why, outcome.fix
        )


def judged(good: bool, found: str, expected: str, fix: str, bad: Status = "fail") -> Outcome:
    """An outcome that passes or is ``bad``; the fix is kept for the bad one alone."""
    return Outcome("pass", found, expected) if good else Outcome(bad, found, expected, fix)


def skipped(reason: str) -> Outcome:
    """The outcome of a check that cannot be made."""
    return Outcome("skip", reason)


def size(count: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
