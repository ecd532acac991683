"""Define a check and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.facts import Facts, Unavailable
from vimectl.stacks.schema import Stack

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. ``found`` is what was read from the machine, never an assumption.

    ``fix`` is a command or an edit, for warn and fail only. ``rationale`` is the rule that the check
    enforces. ``Check.run`` fills in ``id`` and ``rationale``.
    """

    status: Status
    found: str
    expected: str = ""
    fix: str = ""
    id: str = ""
    rationale: str = ""

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]

    def as_json(self) -> dict[str, Any]:
        """Return the entry of ``checks`` in `doctor --json`."""
        return {
            "id": self.id,
            "group": self.group,
            "status": self.status,
            "found": self.found,
            "expected": self.expected,
            "why": self.rationale,
            "fix": self.fix,
        }


def result(good: bool, found: str, expected: str, fix: str, bad: Status = "fail") -> CheckResult:
    """Return a pass, or ``bad`` with the fix."""
    return CheckResult("pass", found, expected) if good else CheckResult(bad, found, expected, fix)


def listed(items: Sequence[str], limit: int = 4, separator: str = ", ") -> str:
    """Return the first items as text, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


def skip(reason: str) -> CheckResult:
    """Return the result of a check that does not apply or lacks a fact."""
    return CheckResult("skip", reason)


# A text is a pass, and what was found. A VimeError is a failure.
CheckFunction = Callable[[Facts], CheckResult | str]


@dataclass(frozen=True)
class Check:
    """One check. ``id`` is ``<group>.<name>`` and stable.

    ``device`` restricts it to stacks for that device, ``running`` to machines with processes (not an unpacked
    image). ``imports`` marks a check that imports packages, which takes seconds: it runs on request only.
    ``expected`` is for the results that the function does not return itself, see CheckFunction.
    """

    id: str
    rationale: str
    function: CheckFunction
    device: str | None = None
    running: bool = False
    imports: bool = False
    expected: str = ""

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]

    def run(self, facts: Facts) -> CheckResult:
        """Return the result: skip if the check does not apply or a fact is unavailable."""
        return self.named(self._run(facts))

    def named(self, found: CheckResult) -> CheckResult:
        """Return a result with the id and rationale of this check."""
        return replace(found, id=self.id, rationale=self.rationale)

    def _run(self, facts: Facts) -> CheckResult:
        device = facts.stack.stack.device
        if self.device not in (None, device):
            return skip(f"the stack is for {device}")
        if self.running and not facts.running:
            return skip("this file system has no /proc: it is not a running machine")
        try:
            found = self.function(facts)
        except Unavailable as e:
            return skip(str(e))
        except VimeError as e:
            return CheckResult("fail", facts.without_root(e.message), self.expected, e.hint)
        return CheckResult("pass", found, self.expected) if isinstance(found, str) else found


class CheckList:
    """The checks of one module, in order of declaration. ``device`` and ``running`` hold for all of them.

    The docstring of a check is its rationale, which the report shows: the rule that the check enforces.
    """

    def __init__(self, device: str | None = None, running: bool = False) -> None:
        self._device, self._running = device, running
        self._makers: list[Callable[[Stack], list[Check]]] = []

    def add(
        self,
        id: str,
        *,
        device: str | None = None,
        running: bool = False,
        imports: bool = False,
        expected: str = "",
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Declare the decorated function as a check."""

        def register(function: CheckFunction) -> CheckFunction:
            rationale = " ".join((function.__doc__ or "").split())
            applies = device or self._device, running or self._running
            check = Check(id, rationale, function, *applies, imports, expected)
            self._makers.append(lambda stack: [check])
            return function

        return register

    def add_for_stack(self, make: Callable[[Stack], list[Check]]) -> Callable[[Stack], list[Check]]:
        """Declare the decorated function as the maker of checks that depend on the stack."""
        self._makers.append(make)
        return make

    def of(self, stack: Stack) -> list[Check]:
        """Return the checks for a stack."""
        return [check for make in self._makers for check in make(stack)]
