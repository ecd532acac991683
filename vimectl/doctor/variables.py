"""What each process of a recipe would get for a variable, and whether it is what it must be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vime_runtime.spec.recipe import Recipe

from vimectl.doctor.finding import Check, Outcome, Subject, skipped
from vimectl.recipes.environment import ROLES, Role, Variable, environment, variables

NO_RECIPE = "no recipe: what a process gets is a recipe's to say"
NOT_RUNNING = "a file system that is only looked at has no environment"


@dataclass(frozen=True)
class Values:
    """The values of one variable: in the shell that asks, and in each process of a run (None: not set)."""

    name: str
    here: str | None
    processes: dict[Role, str | None]
    in_recipe: bool

    def __str__(self) -> str:
        """``driver, train: not set; rollout: 0; here: 1``."""
        parts = []
        for value in dict.fromkeys(self.processes.values()):
            roles = ", ".join(role for role, its in self.processes.items() if its == value)
            parts.append(f"{roles}: {_shown(value)}")
        return "; ".join([*parts, f"here: {_shown(self.here)}"])

    @property
    def mend(self) -> str:
        """Where a wrong value of a process is to be mended: it is the recipe's, or inherited."""
        return f"take {self.name} out of the recipe's [env]" if self.in_recipe else f"unset {self.name}"


def values(subject: Subject, name: str) -> Values:
    """The values of a variable for the subject's recipe, which there must be."""
    assert subject.recipe is not None
    here = subject.host.environment.get(name)
    found: dict[Role, str | None] = {}
    for role in ROLES:
        setting = environment(subject.recipe, role, subject.host, Path("/tmp")).get(name)
        found[role] = setting.value if setting else here
    return Values(name, here, found, name in subject.recipe.env)


def of_recipe(subject: Subject, device: str | None = None) -> Recipe | Outcome:
    """The recipe whose processes a check is about; why nothing can be said of them when nothing can.

    Args:
        device: what the stack must compute on for the question to arise.
    """
    own = subject.stack.stack.device
    if device is not None and own != device:
        return skipped(f"the stack computes on {own}")
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    return subject.recipe or skipped(NO_RECIPE)


def checks() -> list[Check]:
    """One check for each variable that ``environment.toml`` wants checked."""
    wanted: dict[str, list[Variable]] = {}
    for variable in variables():
        if variable.check:
            wanted.setdefault(variable.check, []).append(variable)
    return [
        Check(f"environment.{name}", f"{entries[0].name}: {entries[0].reason}", partial(_fixed, entries))
        for name, entries in wanted.items()
    ]


def _fixed(entries: list[Variable], subject: Subject) -> Outcome:
    recipe, name = subject.recipe, entries[0].name
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    if recipe is None:
        return skipped(f"{NO_RECIPE}; here {name} is {_shown(subject.host.environment.get(name))}")
    wanted = {role: v for role in ROLES for v in entries if v.holds(recipe, role, private_cluster=True)}
    if not wanted:
        return skipped(f"no process of this recipe is given {name}")
    found = values(subject, name)
    value = next(iter(wanted.values())).value
    expected = f"{value} in {', '.join(wanted)}"
    if not all(variable.accepted(found.processes[role]) for role, variable in wanted.items()):
        return Outcome("fail", str(found), expected, found.mend)
    if found.here is not None and not any(v.accepted(found.here) for v in wanted.values()):
        # The launcher sets it for what it starts, so this hurts only what is started by hand.
        mend = f"export {name}={value}  (for what is started by hand: the launcher sets it by itself)"
        return Outcome("warn", str(found), expected, mend)
    return Outcome("pass", str(found), expected)


def _shown(value: str | None) -> str:
    return "not set" if value is None else value or "empty"
