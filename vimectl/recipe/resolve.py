"""From a recipe's name, a mode and a list of overrides to one checked recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vimectl.errors import BadInput, unknown
from vimectl.recipe import overrides, prepared
from vimectl.recipe.find import find
from vimectl.recipe.schema import Mode, Recipe
from vimectl.toml import read_toml, validate

REWARDS = ("exact-match", "math-verify")


@dataclass(frozen=True)
class Resolved:
    """A recipe with its overrides applied and ``{prepared}`` replaced, and how long the run is."""

    source: Path
    recipe: Recipe
    mode: str
    steps: int
    assignments: tuple[str, ...] = ()


def load(path: Path) -> Recipe:
    """Read and check one recipe file. Raises BadInput that names the file and every wrong key."""
    return _checked(read_toml(path), str(path))


def resolve(name_or_path: str, mode: str | None = None, assignments: list[str] | None = None) -> Resolved:
    """Find a recipe, apply overrides, check it.

    Raises:
        BadInput: an unknown recipe, mode or key, a value of the wrong type, or keys that contradict.
    """
    source = find(name_or_path)
    recipe = load(source)
    if assignments:
        data = overrides.apply(read_toml(source), assignments)
        recipe = _checked(data, " ".join(f"--set {assignment}" for assignment in assignments))
    mode = mode or recipe.recipe.default_mode
    if mode not in get_args(Mode):
        raise unknown("mode", mode, get_args(Mode))
    return Resolved(
        source, _with_real_paths(recipe), mode, recipe.modes.steps(mode), tuple(assignments or ())
    )


def contradictions(recipe: Recipe) -> list[str]:
    """What no run could satisfy, although each key by itself is fine. Empty when all is well."""
    found = []
    devices = recipe.cluster.devices
    for side, tensor_parallel in (
        ("train", recipe.train.tensor_parallel),
        ("rollout", recipe.rollout.tensor_parallel),
    ):
        if devices % tensor_parallel:
            found.append(
                f"'{side}.tensor_parallel': {tensor_parallel} does not divide "
                f"the {devices} devices of [cluster]"
            )
    if recipe.cluster.devices_per_node % recipe.rollout.tensor_parallel:
        found.append(
            f"'rollout.tensor_parallel': {recipe.rollout.tensor_parallel} does not divide the "
            f"{recipe.cluster.devices_per_node} devices of one node; an engine lives on one node"
        )
    if recipe.algorithm.updates_per_step > recipe.algorithm.prompts_per_step:
        found.append(
            f"'algorithm.updates_per_step': {recipe.algorithm.updates_per_step} is more than the "
            f"{recipe.algorithm.prompts_per_step} prompts that are dealt to the updates of a step"
        )
    if recipe.cluster.device == "cpu" and recipe.rollout.kv_cache_bytes is None:
        found.append("'rollout.kv_cache_bytes': needed on a CPU, where the KV cache is given in bytes")
    if recipe.prepare is None and "{prepared}" in recipe.model.path + recipe.data.path:
        found.append("'{prepared}' is used but there is no [prepare] table")
    reward = recipe.data.reward
    if reward not in REWARDS and not re.fullmatch(r"[\w.]+:\w+", reward):
        found.append(
            f"'data.reward': {reward!r} is none of {', '.join(REWARDS)}, nor package.module:function"
        )
    if recipe.optimizer.min_lr > recipe.optimizer.lr:
        found.append(f"'optimizer.min_lr': {recipe.optimizer.min_lr:g} is above lr {recipe.optimizer.lr:g}")
    return found


def _checked(data: dict[str, Any], where: str) -> Recipe:
    recipe = validate(Recipe, data, where)
    if found := contradictions(recipe):
        raise BadInput(f"{where}: " + "; ".join(found), "change one of the keys named")
    return recipe


def _with_real_paths(recipe: Recipe) -> Recipe:
    """Replace ``{prepared}`` and make every path absolute: the runtime may run anywhere."""

    def real(text: str) -> str:
        if recipe.prepare is not None:
            text = text.replace("{prepared}", str(prepared.folder(recipe.prepare)))
        return str(Path(text).expanduser().absolute())

    own = recipe.evaluation.path
    return recipe.model_copy(
        update={
            "evaluation": recipe.evaluation.model_copy(update={"path": own and real(own)}),
            "model": recipe.model.model_copy(update={"path": real(recipe.model.path)}),
            "data": recipe.data.model_copy(update={"path": real(recipe.data.path)}),
        }
    )
