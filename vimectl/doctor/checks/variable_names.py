"""environment: misspelled names of variables."""

from __future__ import annotations

import shlex

from vimectl.doctor.check import CheckList, CheckResult, warn_unless
from vimectl.doctor.checks import assignment, cann_environment, directories, environment, hccl, ports, user
from vimectl.doctor.facts import Facts
from vimectl.recipes.environment import variables
from vimectl.stacks.schema import Stack

CHECKS = CheckList(running=True)

_MODULES = (assignment, cann_environment, directories, environment, hccl, ports, user)
# One edit in a short name, two in a long one. A short first word must be the same: NCCL is not HCCL.
_SHORT, _LONG, _WORD = 8, 16, 5


@CHECKS.add(
    "environment.misspelled",
    source="the variables that the other checks read; vllm-ascend PR 5581, #5580",
    reads=("$*",),
)
def misspelled(facts: Facts) -> CheckResult:
    """A variable with a misspelled name is ignored by the program that it is for, without a message."""
    known = _known(facts.stack)
    wrong = {
        name: right
        for name in facts.environment
        if name not in known
        for right in known
        if right not in facts.environment and is_misspelled(name, right)
    }
    fixes = [
        f"unset {name}; export {right}={shlex.quote(facts.environment[name])}"
        for name, right in sorted(wrong.items())
    ]
    return warn_unless(
        not wrong,
        "; ".join(f"{name} (for {right}?)" for name, right in sorted(wrong.items()))
        or "no name is close to that of a known variable",
        "names of variables that a program reads",
        "; ".join(fixes),
    )


def _known(stack: Stack) -> set[str]:
    """Return the names of the variables that the checks of the environment read and a run sets."""
    checks = [check for module in _MODULES for check in module.CHECKS.of(stack)]
    names = {one[1:] for check in checks for one in check.reads if one.startswith("$")}
    return names | {variable.name for variable in variables()}


def is_misspelled(name: str, right: str) -> bool:
    """Return True if a name is probably meant to be another one."""
    if "_" not in right or len(right) < _SHORT or abs(len(name) - len(right)) > 2:
        return False
    word = right.partition("_")[0]
    if len(word) < _WORD and name.partition("_")[0] != word:
        return False
    return _distance(name, right) <= (2 if len(right) >= _LONG else 1)


def _distance(one: str, other: str) -> int:
    """Return the number of insertions, deletions, replacements and swaps of neighbors between two texts."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, left in enumerate(one):
        current = [i + 1]
        for j, right in enumerate(other):
            cost = min(row[j] + (left != right), row[j + 1] + 1, current[j] + 1)
            if i and j and left == other[j - 1] and one[i - 1] == right:
                cost = min(cost, before[j - 1] + 1)
            current.append(cost)
        before, row = row, current
    return row[-1]
