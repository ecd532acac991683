"""Resolve a recipe's name, a mode and overrides into one validated recipe."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.recipe import LEAST_TEMPERATURE, REPLACED_KEYS, PrepareTable, Recipe
from vime_runtime.spec.run_modes import MODES, Mode

from vimectl import __version__
from vimectl.recipes import data_tables, overrides
from vimectl.recipes.catalog import find_recipe
from vimectl.recipes.environment import variables
from vimectl.util.secrets import is_secret, redact
from vimectl.util.toml import read_toml, validate

# A path, or a number that is too short for a secret.
_PLAIN = re.compile(r"[/~.]|[0-9]{1,5}$")


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with overrides applied and defaults filled in, and the length of the run.

    Attributes:
        steps: None if ``train.epochs`` gives the length: see ``plan.RunPlan.steps``.
    """

    source: Path
    recipe: Recipe
    mode: Mode
    steps: int | None
    assignments: tuple[str, ...] = ()

    @property
    def private(self) -> dict[str, str]:
        """The variables of ``[env]`` whose values are written to no file.

        They look like secrets, or are given on the command line. Of the latter, paths, numbers of up to five
        digits and the variables that vimectl sets itself are not private: a run is hard to understand, and
        its memory cannot be computed, without them.
        """
        given = {one.partition("=")[0].strip() for one in self.assignments}
        known = {variable.name for variable in variables()}

        def is_private(name: str, value: str) -> bool:
            if is_secret(name) or redact(value) != value:
                return True
            return f"env.{name}" in given and name not in known and not _PLAIN.match(value)

        return {name: value for name, value in self.recipe.env.items() if is_private(name, value)}


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe file. Raises UsageError that names the file and every wrong key."""
    return _validate(read_toml(path), str(path))


def resolve(
    name_or_path: str, mode: str | None = None, assignments: list[str] | None = None
) -> ResolvedRecipe:
    """Find a recipe, apply overrides, validate it and fill in defaults.

    Raises:
        UsageError: an unknown recipe, mode or key, a value of the wrong type, or keys that contradict each
            other.
    """
    source = find_recipe(name_or_path)
    recipe = load_recipe(source)
    if assignments:
        data = read_toml(source)
        if any(assignment.partition("=")[0].strip() == "data.path" for assignment in assignments):
            data["data"].pop("settings", None)  # they belong to the path that is replaced
        data = overrides.apply(data, assignments)
        recipe = _validate(data, " ".join(f"--set {assignment}" for assignment in assignments))
    wanted = mode or recipe.recipe.default_mode
    chosen = next((known for known in MODES if known == wanted), None)
    if chosen is None:
        raise unknown("mode", wanted, MODES)
    steps = None if recipe.train.epochs and chosen != "smoke" else recipe.modes.steps(chosen)
    return ResolvedRecipe(source, _fill_defaults(recipe), chosen, steps, tuple(assignments or ()))


def prepared_dir(table: PrepareTable) -> Path:
    """Return the cache folder of a preparation. It depends on the settings and on the version of vimectl."""
    identity = json.dumps([__version__, table.model_dump()], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("vimectl")) / "prepared" / f"{table.kind}-{digest}"


def required_preparation(recipe: Recipe) -> PrepareTable | None:
    """Return ``[prepare]`` if model or data come from it; None if the user overrides all of them."""
    if recipe.prepare is None:
        return None
    folder = str(prepared_dir(recipe.prepare))
    return recipe.prepare if any(folder in path for path in _paths(recipe)) else None


def _paths(recipe: Recipe) -> list[str]:
    """Return the paths of model and data."""
    evaluation = recipe.evaluation
    sets = [one.path for one in evaluation.sets.values()]
    return [recipe.model.path, recipe.data.path, *sets, *([evaluation.path] if evaluation.path else [])]


def _validate(data: dict[str, Any], where: str) -> Recipe:
    for key, advice in REPLACED_KEYS.items():
        table, _, name = key.partition(".")
        if isinstance(data.get(table), dict) and name in data[table]:
            raise UsageError(f"{where}: the key {key!r} does not exist any more", advice)
    recipe = validate(Recipe, data, where)
    if found := list(_contradictions(recipe)):
        raise UsageError(f"{where}: " + "; ".join(found), "change one of the keys named")
    return recipe


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield contradictions between keys that are valid on their own, and text that cannot be passed on."""
    text = recipe.model_dump_json()
    if r"\u0000" in text:
        yield "a text has a NUL character, which no file name, variable or argument can have"
    cluster, train, rollout = recipe.cluster, recipe.train, recipe.rollout
    for key, size, count, devices in (
        ("train.tensor_parallel", train.tensor_parallel, cluster.devices, "devices of [cluster]"),
        ("train.expert_parallel", train.expert_parallel, cluster.devices, "devices of [cluster]"),
        (
            "rollout.tensor_parallel",
            rollout.tensor_parallel,
            cluster.devices_per_node,
            "devices of one node; an engine runs on one node",
        ),
    ):
        if count % size:
            yield f"{key!r}: {size} does not divide the {count} {devices}"
    if train.expert_parallel > 1 and train.expert_parallel % train.tensor_parallel:
        yield (
            f"'train.expert_parallel': {train.expert_parallel} is neither 1 nor a multiple of "
            f"tensor_parallel {train.tensor_parallel}"
        )
    if rollout.expert_parallel and cluster.device == "cpu":
        yield "'rollout.expert_parallel': vLLM's kernel for a CPU computes all experts on every rank"
    if 0 < recipe.evaluation.temperature < LEAST_TEMPERATURE:
        yield (
            f"'evaluation.temperature': {recipe.evaluation.temperature:g} is neither 0 (greedy) nor at least "
            f"{LEAST_TEMPERATURE}, the least that vLLM samples at"
        )
    if rollout.kv_cache_bytes is None and cluster.device == "cpu":
        yield "'rollout.kv_cache_bytes': needed on a CPU, where the KV cache is given in bytes"
    if recipe.algorithm.updates_per_step > recipe.algorithm.prompts_per_step:
        yield (
            f"'algorithm.updates_per_step': {recipe.algorithm.updates_per_step} is more than the "
            f"{recipe.algorithm.prompts_per_step} prompts that are distributed over the updates of a step"
        )
    if recipe.optimizer.min_lr > recipe.optimizer.lr:
        yield f"'optimizer.min_lr': {recipe.optimizer.min_lr:g} is above lr {recipe.optimizer.lr:g}"
    yield from data_tables.contradictions(recipe)
    if recipe.prepare is None:
        if any("{prepared}" in path for path in _paths(recipe)):
            yield "'{prepared}' is used but there is no [prepare] table"
    elif recipe.prepare.fetch is None and "{fetched}" in json.dumps(recipe.prepare.settings, default=str):
        yield "'{fetched}' is used but there is no [prepare.fetch] table"


def _fill_defaults(recipe: Recipe) -> Recipe:
    """Replace ``{prepared}``, make paths absolute, and fill in what data and evaluation sets leave out.

    Paths are absolute because the runtime may run in any directory.
    """

    def absolute(text: str) -> str:
        if recipe.prepare is not None:
            text = text.replace("{prepared}", str(prepared_dir(recipe.prepare)))
        return str(Path(text).expanduser().absolute())

    return recipe.model_copy(
        update={
            "evaluation": recipe.evaluation.model_copy(update=data_tables.fill_evaluation(recipe, absolute)),
            "model": recipe.model.model_copy(update={"path": absolute(recipe.model.path)}),
            "data": recipe.data.model_copy(update=data_tables.fill_data(recipe, absolute)),
        }
    )
