"""Decide the environment variables of each process of a run, from ``environment.toml`` in this folder.

The doctor, the dry run and the launch use the same function.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from pydantic import Field
from vime_runtime.spec.process_roles import ROLES, Role
from vime_runtime.spec.recipe import Device, Recipe
from vime_runtime.spec.run_config import RequiredVariable
from vime_runtime.spec.strict import Strict

from vimectl.util.cpu_list import allowed_cpus
from vimectl.util.host import Host
from vimectl.util.toml import load

# Where CANN is installed by default, for shells that have not sourced its set_env.sh.
CANN_HOME = "/usr/local/Ascend/ascend-toolkit/latest"


class Variable(Strict):
    """One entry of ``environment.toml``."""

    name: str
    value: str = Field(description="Value, with {names} that this module computes.")
    reason: str
    check: str | None = Field(default=None, description="The doctor's check: environment.<check>.")
    accepts: str | None = Field(default=None, description="Pattern of other values that are as good.")
    required: bool = Field(default=False, description="A process with another value refuses to start.")
    device: list[Device] | None = None
    one_node: bool | None = None
    private_cluster: bool | None = None
    graphs: bool | None = Field(default=None, description="True: if the engine captures graphs.")
    roles: list[Role] = Field(default_factory=lambda: list(ROLES))

    def applies(self, recipe: Recipe, role: Role, private_cluster: bool) -> bool:
        """Return True if a process of this role gets the variable in this recipe and kind of cluster."""
        cluster = recipe.cluster
        return (
            role in self.roles
            and (self.device is None or cluster.device in self.device)
            and (self.one_node is None or (cluster.nodes == 1) == self.one_node)
            and (self.private_cluster is None or private_cluster == self.private_cluster)
            and (self.graphs is None or recipe.rollout.eager != self.graphs)
        )

    def accepted(self, value: str | None) -> bool:
        """Return True if this value is as good as the one that is set."""
        return value is not None and re.fullmatch(self.accepts or re.escape(self.value), value) is not None


class VariableFile(Strict):
    """The content of ``environment.toml``."""

    variable: list[Variable]


class Setting(Strict):
    """The value of a variable in one process, and the reason for it.

    With ``required`` the process checks the value when it starts, and refuses another one.
    """

    value: str
    reason: str
    required: RequiredVariable | None = None


def environment(
    recipe: Recipe, role: Role, host: Host, scratch_dir: Path, private_cluster: bool = True
) -> dict[str, Setting]:
    """Return the variables of one process. It inherits all others. ``[env]`` of the recipe has precedence.

    Args:
        scratch_dir: the run's private temporary folder.
        private_cluster: True if the run starts its own Ray cluster on this machine.
    """
    computed = _computed_values(recipe, host, scratch_dir)
    settings = {}
    for variable in variables():
        if variable.applies(recipe, role, private_cluster):
            value, required = variable.value.format_map(computed), None
            if variable.required:
                required = RequiredVariable(
                    accepts=variable.accepts or re.escape(value), reason=variable.reason
                )
            settings[variable.name] = Setting(value=value, reason=variable.reason, required=required)
    for name, value in recipe.env.items():
        required = settings[name].required if name in settings else None
        settings[name] = Setting(value=value, reason="[env] of the recipe", required=required)
    return settings


def core_groups(cores: list[int], groups: int) -> list[list[int]]:
    """Divide cores among ranks, adjacent cores together. Ranks share cores if there are too few.

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
    """Return the entries of ``environment.toml`` in order."""
    return tuple(load(VariableFile, Path(__file__).with_name("environment.toml")).variable)


def allowed_cores(host: Host) -> list[int]:
    """Return the cores that a process may use; for another machine, those in its /proc/self/status."""
    if host.is_here:
        return sorted(os.sched_getaffinity(0))
    return allowed_cpus(host) or [0]


def _computed_values(recipe: Recipe, host: Host, scratch_dir: Path) -> dict[str, str]:
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


def _no_proxy(host: Host) -> str:
    given = host.environment.get("no_proxy") or host.environment.get("NO_PROXY", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    return ",".join(dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"]))


def _cann_pythonpath(host: Host) -> str:
    """Return the directories that CANN's set_env.sh adds to PYTHONPATH, and then the inherited ones."""
    home = host.environment.get("ASCEND_TOOLKIT_HOME", CANN_HOME)
    paths = [f"{home}/python/site-packages", f"{home}/opp/built-in/op_impl/ai_core/tbe"]
    inherited = [path for path in host.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join(dict.fromkeys([*paths, *inherited]))
