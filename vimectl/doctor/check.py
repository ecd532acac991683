"""Define a check and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.facts import Facts, Unavailable
from vimectl.stacks.schema import Stack
from vimectl.util.console import one_line
from vimectl.util.host import DENIED

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. ``found`` is what was read from the machine, never an assumption.

    ``fix`` is a command or an edit, for warn and fail only. ``rationale`` is the rule that the check
    enforces. ``cause`` is the id of the failed check from which this result follows. ``Check.run`` fills in
    ``id``, ``rationale`` and ``read``, the paths and commands that were read; the runner ``cause``.
    """

    status: Status
    found: str
    expected: str = ""
    fix: str = ""
    id: str = ""
    rationale: str = ""
    cause: str = ""
    read: tuple[str, ...] = ()

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
            "cause": self.cause or None,
        }


def result(good: bool, found: str, expected: str, fix: str, bad: Status = "fail") -> CheckResult:
    """Return a pass, or ``bad`` with the fix."""
    return CheckResult("pass", found, expected) if good else CheckResult(bad, found, expected, fix)


def warn_unless(good: bool, found: str, expected: str, fix: str) -> CheckResult:
    """Return a pass, or a warning with the fix."""
    return result(good, found, expected, fix, "warn")


def listed(items: Sequence[str], limit: int = 4, separator: str = ", ") -> str:
    """Return the first items as text, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


# A text is a pass, and what was found. Unavailable is a skip with its reason, a VimeError a failure.
CheckFunction = Callable[[Facts], CheckResult | str]


@dataclass(frozen=True)
class Check:
    """One check. ``id`` is ``<group>.<name>`` and stable.

    ``source`` says where the rule comes from. ``reads`` are patterns of the paths and commands that the check
    reads, and ``$NAME`` of variables. ``after`` are the checks, or patterns of them, whose failures explain a
    failure of this one, the likeliest first.

    ``device`` restricts it to stacks for that device, ``running`` to machines with processes (not an unpacked
    image), ``recipe`` to a doctor with a recipe, ``several`` to recipes for several nodes. ``imports`` marks
    a check that imports packages, which takes seconds: it runs on request only.
    ``expected`` is for the results that the function does not return itself, see CheckFunction.
    """

    id: str
    rationale: str
    function: CheckFunction
    source: str = ""
    reads: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    device: str | None = None
    running: bool = False
    recipe: bool = False
    several: bool = False
    imports: bool = False
    expected: str = ""

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]

    @property
    def when(self) -> str:
        """Return when the check applies."""
        conditions = {
            f"stacks for {self.device}": self.device,
            "running machines": self.running,
            "with --recipe": self.recipe,
            "recipes for several nodes": self.several,
            "with --imports": self.imports,
        }
        return ", ".join(text for text, applies in conditions.items() if applies) or "always"

    def run(self, facts: Facts) -> CheckResult:
        """Return the result: skip if the check does not apply or a fact is unavailable.

        A bad result is a skip too if a file that the check needs must not be read: nothing is known then.
        """
        with facts.observing() as observed:
            found = self._result(facts)
        denied = [
            path for path, problem in observed.items() if problem == DENIED and path in facts.unreadable
        ]
        if denied and found.status in ("warn", "fail"):
            found = CheckResult("skip", f"{DENIED}: {listed(denied)}", found.expected)
        return replace(
            found,
            id=self.id,
            rationale=self.rationale,
            found=one_line(found.found),
            expected=one_line(found.expected),
            fix=one_line(found.fix),
            read=tuple(map(one_line, observed)),
        )

    def _result(self, facts: Facts) -> CheckResult:
        device = facts.stack.stack.device
        try:
            if self.device not in (None, device):
                raise Unavailable(f"the stack is for {device}")
            if self.running and not facts.running:
                raise Unavailable("this file system has no /proc: it is not a running machine")
            if self.several and facts.nodes == 1:
                raise Unavailable("the job is for one node")
            if self.recipe:
                _ = facts.recipe  # raises Unavailable
            found = self.function(facts)
        except Unavailable as e:
            return CheckResult("skip", str(e))
        except VimeError as e:
            return CheckResult("fail", facts.without_root(e.message), self.expected, e.hint)
        return CheckResult("pass", found, self.expected) if isinstance(found, str) else found


class CheckList:
    """The checks of one module, in order of declaration. All of them have the fields ``common`` of Check."""

    def __init__(self, **common: Any) -> None:
        self._common = common
        self._makers: list[Callable[[Stack], list[Check]]] = []

    def add(
        self, id: str, why: Callable[[Stack], str] | None = None, **fields: Any
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Declare the decorated function as a check with these fields of Check.

        Its docstring is its rationale, which the report shows: the rule that the check enforces. With ``why``
        the rationale depends on the stack, and a stack for which it is empty does not have the check.
        """

        def register(function: CheckFunction) -> CheckFunction:
            text = " ".join((function.__doc__ or "").split())
            self._makers.append(
                lambda stack: [Check(id, why(stack) if why else text, function, **self._common, **fields)]
            )
            return function

        return register

    def add_each(
        self,
        id: str,
        names: Callable[[Stack], dict[str, str]],
        after: Sequence[str] = (),
        **fields: Any,
    ) -> Callable[[Callable[[str, Facts], CheckResult]], object]:
        """Declare the decorated function as one check for each name.

        The name replaces ``{}`` in ``id`` and ``after``. ``names`` returns the names for a
        stack with their rationales. The function gets the name.
        """

        def register(function: Callable[[str, Facts], CheckResult]) -> object:
            self._makers.append(
                lambda stack: [
                    Check(
                        id.format(name),
                        why,
                        partial(function, name),
                        after=tuple(one.format(name) for one in after),
                        **self._common,
                        **fields,
                    )
                    for name, why in names(stack).items()
                ]
            )
            return function

        return register

    def of(self, stack: Stack) -> list[Check]:
        """Return the checks for a stack."""
        return [check for make in self._makers for check in make(stack) if check.rationale]
