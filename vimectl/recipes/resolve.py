"""From a recipe's name, a mode and a list of overrides to one checked recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.recipe import MODES, REPLACED_KEYS, REWARDS, DataTable, Mode, PrepareTable, Recipe

from vimectl.recipes import overrides, prepare_cache
from vimectl.recipes.catalog import find
from vimectl.util.toml import read_toml, validate


@dataclass(frozen=True)
class Resolved:
    """A recipe with its overrides applied and ``{prepared}`` replaced, and how long the run is."""

    source: Path
    recipe: Recipe
    mode: Mode
    steps: int
    assignments: tuple[str, ...] = ()


def load(path: Path) -> Recipe:
    """Read and check one recipe file. Raises UsageError that names the file and every wrong key."""
    return _checked(read_toml(path), str(path))


def resolve(name_or_path: str, mode: str | None = None, assignments: list[str] | None = None) -> Resolved:
    """Find a recipe, apply overrides, check it.

    Raises:
        UsageError: an unknown recipe, mode or key, a value of the wrong type, or keys that contradict.
    """
    source = find(name_or_path)
    recipe = load(source)
    if assignments:
        data = read_toml(source)
        if any(assignment.partition("=")[0].strip() == "data.path" for assignment in assignments):
            data["data"].pop("settings", None)  # they are of the path that is replaced
        data = overrides.apply(data, assignments)
        recipe = _checked(data, " ".join(f"--set {assignment}" for assignment in assignments))
    chosen = next((m for m in MODES if m == (mode or recipe.recipe.default_mode)), None)
    if chosen is None:
        raise unknown("mode", str(mode), MODES)
    return Resolved(source, _settled(recipe), chosen, recipe.modes.steps(chosen), tuple(assignments or ()))


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
    found += _expert_contradictions(recipe)
    if recipe.algorithm.updates_per_step > recipe.algorithm.prompts_per_step:
        found.append(
            f"'algorithm.updates_per_step': {recipe.algorithm.updates_per_step} is more than the "
            f"{recipe.algorithm.prompts_per_step} prompts that are dealt to the updates of a step"
        )
    if recipe.cluster.device == "cpu" and recipe.rollout.kv_cache_bytes is None:
        found.append("'rollout.kv_cache_bytes': needed on a CPU, where the KV cache is given in bytes")
    found += _data_contradictions(recipe.data)
    if recipe.prepare is not None and recipe.prepare.fetch is None and "{fetched}" in _texts(recipe.prepare):
        found.append("'{fetched}' is used but there is no [prepare.fetch] table")
    if recipe.prepare is None and "{prepared}" in recipe.model.path + recipe.data.path:
        found.append("'{prepared}' is used but there is no [prepare] table")
    if recipe.optimizer.min_lr > recipe.optimizer.lr:
        found.append(f"'optimizer.min_lr': {recipe.optimizer.min_lr:g} is above lr {recipe.optimizer.lr:g}")
    return found


def _expert_contradictions(recipe: Recipe) -> list[str]:
    found = []
    experts, tensor, devices = (
        recipe.train.expert_parallel,
        recipe.train.tensor_parallel,
        recipe.cluster.devices,
    )
    if experts > 1 and experts % tensor:
        found.append(
            f"'train.expert_parallel': {experts} is neither 1 nor a multiple of tensor_parallel {tensor}"
        )
    if devices % experts:
        found.append(f"'train.expert_parallel': {experts} does not divide the {devices} devices of [cluster]")
    if recipe.rollout.expert_parallel and recipe.cluster.device == "cpu":
        found.append("'rollout.expert_parallel': vLLM's kernel for a CPU computes all experts on every rank")
    return found


def _data_contradictions(data: DataTable) -> list[str]:
    found = []
    if data.system_prompt is not None and not data.apply_chat_template:
        found.append("'data.system_prompt': it needs data.apply_chat_template")
    reward = data.reward
    if reward is not None and reward not in REWARDS and not re.fullmatch(r"[\w.]+:\w+", reward):
        found.append(
            f"'data.reward': {reward!r} is none of {', '.join(REWARDS)}, nor package.module:function"
        )
    if data.task is None and reward == "verifier":
        found.append("'data.reward': 'verifier', but only data.path = 'reasoning_gym:TASK' brings one")
    if data.task is None and data.settings:
        found.append(f"'data.settings': {', '.join(data.settings)}, but data.path is a file and has none")
    if data.task is not None:
        found += [
            f"'data.{key}': a {data.path} has no such keys"
            for key in ("prompt_key", "label_key")
            if key in data.model_fields_set
        ]
    return found


def _texts(prepare: PrepareTable) -> str:
    return " ".join(value for value in prepare.settings.values() if isinstance(value, str))


def _checked(data: dict[str, Any], where: str) -> Recipe:
    for key, advice in REPLACED_KEYS.items():
        table, _, name = key.partition(".")
        if isinstance(data.get(table), dict) and name in data[table]:
            raise UsageError(f"{where}: the key {key!r} does not exist any more", advice)
    recipe = validate(Recipe, data, where)
    if found := contradictions(recipe):
        raise UsageError(f"{where}: " + "; ".join(found), "change one of the keys named")
    return recipe


def _settled(recipe: Recipe) -> Recipe:
    """Replace ``{prepared}``, make every path absolute (the runtime may run anywhere), and fill in what the
    data leaves to the rest: its reward, and the seed of a task.
    """

    def real(text: str) -> str:
        if recipe.prepare is not None:
            text = text.replace("{prepared}", str(prepare_cache.folder(recipe.prepare)))
        return str(Path(text).expanduser().absolute())

    own = recipe.evaluation.path
    data = recipe.data
    if data.task is None:
        settled: dict[str, Any] = {"path": real(data.path), "reward": data.reward or "exact-match"}
    else:
        settings = {"seed": recipe.algorithm.seed, **data.settings}
        settled = {"settings": settings, "reward": data.reward or "verifier"}
    return recipe.model_copy(
        update={
            "evaluation": recipe.evaluation.model_copy(update={"path": own and real(own)}),
            "model": recipe.model.model_copy(update={"path": real(recipe.model.path)}),
            "data": data.model_copy(update=settled),
        }
    )
