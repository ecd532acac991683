"""Read the environment variables, as each process of a run would get them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.process_roles import ROLES, Role
from vime_runtime.spec.recipe import Recipe

from vimectl.recipes.environment import environment
from vimectl.util.host import Host


@dataclass(frozen=True)
class VariableValues:
    """The values of one variable in this shell and in each process of a run. None: not set."""

    name: str
    here: str | None
    processes: dict[Role, str | None]
    in_recipe: bool

    def __str__(self) -> str:
        """``driver, train: not set; rollout: 0; here: 1``."""
        parts = []
        for value in dict.fromkeys(self.processes.values()):
            roles = ", ".join(role for role, own in self.processes.items() if own == value)
            parts.append(f"{roles}: {show_value(value)}")
        return "; ".join([*parts, f"here: {show_value(self.here)}"])

    @property
    def given(self) -> list[str | None]:
        """The different values that the processes get, without a recipe that of this shell."""
        return list(dict.fromkeys(self.processes.values() or [self.here]))

    @property
    def fix(self) -> str:
        """Return how to remove a wrong value, from the recipe or from this shell."""
        return f"remove {self.name} from the recipe's [env]" if self.in_recipe else f"unset {self.name}"


def read_variable(host: Host, recipe: Recipe | None, name: str) -> VariableValues:
    """Return the values of a variable here, and in the processes of a recipe if there is one."""
    here = host.environment.get(name)
    if recipe is None:
        return VariableValues(name, here, {}, False)
    found: dict[Role, str | None] = {}
    for role in ROLES:
        setting = environment(recipe, role, host, Path("/tmp")).get(name)  # nosec B108 # not opened
        found[role] = setting.value if setting else here
    return VariableValues(name, here, found, name in recipe.env)


def show_value(value: str | None) -> str:
    """Return a value for messages."""
    return "not set" if value is None else value or "empty"


def read_rank_table(host: Host, path: str) -> tuple[int, str]:
    """Return how many devices a rank table has, or 0 and what is wrong with it.

    Its format: HCCL guide of CANN, cluster information. ``server_list`` has a ``device`` list for each host.
    """
    text = host.read(path)
    if text is None:
        return 0, host.problem(path)
    try:
        table = json.loads(text)
        devices = sum(len(server["device"]) for server in table["server_list"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0, "not a rank table"
    if table.get("status", "completed") != "completed":
        return 0, f"its status is {table['status']}"
    return devices, "" if devices else "it has no devices"
