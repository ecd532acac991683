"""Which environment each process of a run gets: one function from (recipe, device, role).

The doctor, the dry run and the launch all call it. What is set and why is data:
``environment.toml`` beside this module.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import Field
from vime_runtime.spec.process_roles import ROLES, Role
from vime_runtime.spec.recipe import Device, Recipe
from vime_runtime.spec.strict import Strict

from vimectl.util.cpu_list import allowed_cpus
from vimectl.util.host import Host
from vimectl.util.toml import load

# Where CANN is when nobody sourced its set_env.sh.
CANN_HOME = "/usr/local/Ascend/ascend-toolkit/latest"


class Variable(Strict):
    """One entry of ``environment.toml``.

    ``check`` names the doctor's check of it; ``accepts`` is what other values match that do as well.
    ``required``: a process that has none of them does not start.
    """

    name: str
    value: str
    reason: str
    check: str | None = None
    accepts: str | None = None
    required: bool = False
    device: list[Device] | None = None
    one_node: bool | None = None
    private_cluster: bool | None = None
    roles: list[Role] = Field(default_factory=lambda: list(ROLES))

    def holds(self, recipe: Recipe, role: Role, private_cluster: bool) -> bool:
        """Whether a process of this role gets the variable in this recipe and kind of cluster."""
        cluster = recipe.cluster
        return (
            role in self.roles
            and (self.device is None or cluster.device in self.device)
            and (self.one_node is None or (cluster.nodes == 1) == self.one_node)
            and (self.private_cluster is None or private_cluster == self.private_cluster)
        )

    def accepted(self, value: str | None) -> bool:
        """Whether a process that has this value has what it needs."""
        return value is not None and re.fullmatch(self.accepts or re.escape(self.value), value) is not None


class VariableFile(Strict):
    """The whole of ``environment.toml``."""

    variable: list[Variable]


@dataclass(frozen=True)
class Requirement:
    """Without a value that ``accepts`` matches a process does not start, for this reason."""

    accepts: str
    reason: str


@dataclass(frozen=True)
class Setting:
    """A variable's value in one process, and the reason for it.

    ``required`` is what the process, when it starts, wants it to be, whoever set it; None: anything.
    """

    value: str
    reason: str
    required: Requirement | None = None


def environment(
    recipe: Recipe, role: Role, host: Host, scratch_dir: Path, private_cluster: bool = True
) -> dict[str, Setting]:
    """Decide the variables of one process; all others it inherits. ``[env]`` of the recipe wins.

    Args:
        scratch_dir: the run's private temporary folder.
        private_cluster: whether the run starts a Ray cluster of its own, on this machine.
    """
    computed = _computed(recipe, host, scratch_dir)
    settings = {}
    for variable in variables():
        if variable.holds(recipe, role, private_cluster):
            value, reason = variable.value.format_map(computed), variable.reason
            required = (
                Requirement(variable.accepts or re.escape(value), reason) if variable.required else None
            )
            settings[variable.name] = Setting(value, reason, required)
    for name, value in recipe.env.items():
        required = settings[name].required if name in settings else None
        settings[name] = Setting(value, "[env] of the recipe", required)
    return settings


def core_groups(cores: list[int], groups: int) -> list[list[int]]:
    """Share cores out among ranks: neighbours stay together, and with too few of them ranks share one.

    >>> core_groups([0, 1, 2, 3, 4], 2)
    [[0, 1], [2, 3, 4]]
    >>> core_groups([0], 2)
    [[0], [0]]
    """
    if len(cores) < groups:
        return [[cores[rank % len(cores)]] for rank in range(groups)]
    return [cores[rank * len(cores) // groups : (rank + 1) * len(cores) // groups] for rank in range(groups)]


@lru_cache(maxsize=1)
def variables() -> tuple[Variable, ...]:
    """What ``environment.toml`` has, in its order."""
    return tuple(load(VariableFile, Path(__file__).with_name("environment.toml")).variable)


def _computed(recipe: Recipe, host: Host, scratch_dir: Path) -> dict[str, str]:
    cores = allowed_cores(host)
    train = core_groups(cores, recipe.cluster.devices_per_node)
    rollout = core_groups(cores, recipe.rollout.tensor_parallel)
    return {
        "scratch_dir": str(scratch_dir),
        "no_proxy": _no_proxy(host),
        "train_threads": str(min(len(group) for group in train)),
        "rollout_threads": str(min(len(group) for group in rollout)),
        "rollout_cores": "|".join(",".join(map(str, group)) for group in rollout),
        "cann_pythonpath": _cann_pythonpath(host),
    }


def allowed_cores(host: Host) -> list[int]:
    """The cores that a process may run on; of another machine, those that its kernel names."""
    if host.is_here:
        return sorted(os.sched_getaffinity(0))
    return allowed_cpus(host) or [0]


def _no_proxy(host: Host) -> str:
    given = host.environment.get("no_proxy") or host.environment.get("NO_PROXY", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    return ",".join(dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"]))


def _cann_pythonpath(host: Host) -> str:
    """What CANN's set_env.sh puts on PYTHONPATH, and then what was there."""
    home = host.environment.get("ASCEND_TOOLKIT_HOME", CANN_HOME)
    paths = [f"{home}/python/site-packages", f"{home}/opp/built-in/op_impl/ai_core/tbe"]
    given = [path for path in host.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join(dict.fromkeys([*paths, *given]))
