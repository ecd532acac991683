"""Contradictions and defaults of ``[data]`` and of the sets of ``[evaluation]``."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from vime_runtime.spec.recipe import HELD_OUT_SET, REWARDS, TASK_PREFIX, EvaluationSet, Recipe

# The files of the training set have this name.
_RESERVED_SET = "train"
_DEFAULT_REWARD = "exact-match"


def contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield the contradictions between keys of the data and of the evaluation sets."""
    data = recipe.data
    if not data.apply_chat_template:
        for key in ("system_prompt", "chat_template_kwargs"):
            if getattr(data, key):
                yield f"'data.{key}': it needs data.apply_chat_template"
    yield from _unknown_reward("data.reward", data.reward)
    if data.task is None:
        if data.reward == "verifier":
            yield f"'data.reward': 'verifier', but only data.path = '{TASK_PREFIX}TASK' has one"
        if data.settings:
            yield f"'data.settings': {', '.join(data.settings)}, but data.path is a file and has none"
    elif all(_is_task(one) for one in _sets(recipe).values()):
        for key in ("prompt_key", "label_key"):
            if key in data.model_fields_set:
                yield f"'data.{key}': a {data.path} has no such keys"
    if recipe.evaluation.path is not None and recipe.evaluation.sets:
        names = ", ".join(recipe.evaluation.sets)
        yield f"'evaluation.path': there are evaluation.sets as well ({names}); make it one of them"
        return
    for name, one in _sets(recipe).items():
        yield from _set_contradictions(recipe, name, one)


def fill_data(recipe: Recipe, absolute: Callable[[str], str]) -> dict[str, Any]:
    """Return the keys of ``[data]`` to fill in: an absolute path, the reward, and the seed of a task."""
    data = recipe.data
    if data.task is None:
        return {"path": absolute(data.path), "reward": data.reward or _DEFAULT_REWARD}
    settings = {"seed": recipe.algorithm.seed, **data.settings}
    return {"settings": settings, "reward": data.reward or "verifier"}


def fill_evaluation(recipe: Recipe, absolute: Callable[[str], str]) -> dict[str, Any]:
    """Return the keys of ``[evaluation]`` to fill in: sets that leave nothing out, also for ``path``."""
    return {
        "path": None,
        "sets": {name: _fill_set(recipe, name, one, absolute) for name, one in _sets(recipe).items()},
    }


def _fill_set(recipe: Recipe, name: str, one: EvaluationSet, absolute: Callable[[str], str]) -> EvaluationSet:
    filled: dict[str, Any] = {
        "reward": _reward(recipe, one),
        "answer": one.answer or recipe.data.answer,
    }
    if _is_task(one):
        # With the seed of the training problems these would be the same ones, and with one close to it many.
        seed = random.Random(f"{recipe.algorithm.seed} evaluation {name}").getrandbits(31)  # nosec B311
        filled["settings"] = {"seed": seed, **one.settings}
    else:
        filled["path"] = absolute(one.path)
    return one.model_copy(update=filled)


def _sets(recipe: Recipe) -> dict[str, EvaluationSet]:
    """Return the evaluation sets as the user gives them; ``path`` is a set as well."""
    path = recipe.evaluation.path
    if path is None:
        return recipe.evaluation.sets
    # Only a set has settings. Those of the same task fit.
    settings = recipe.data.settings if path == recipe.data.path else {}
    settings = {key: value for key, value in settings.items() if key != "seed"}
    return {HELD_OUT_SET: EvaluationSet(path=path, settings=settings)}


def _set_contradictions(recipe: Recipe, name: str, one: EvaluationSet) -> Iterator[str]:
    key = "evaluation" if recipe.evaluation.path is not None else f"evaluation.sets.{name}"
    if name == _RESERVED_SET:
        yield f"'{key}': this is the name of the problems to train on; choose another"
    yield from _unknown_reward(f"{key}.reward", one.reward)
    if _is_task(one):
        return
    if one.settings:
        yield f"'{key}.settings': {', '.join(one.settings)}, but {key}.path is a file and has none"
    if _reward(recipe, one) == "verifier":
        yield (
            f"'{key}.path': a file has no verifier, but its answers would be scored by that of "
            f"{recipe.data.path}; set evaluation.sets.{name}.path and .reward instead"
        )


def _reward(recipe: Recipe, one: EvaluationSet) -> str:
    if one.reward or _is_task(one):
        return one.reward or "verifier"
    return recipe.data.reward or ("verifier" if recipe.data.task else _DEFAULT_REWARD)


def _is_task(one: EvaluationSet) -> bool:
    return one.path.startswith(TASK_PREFIX)


def _unknown_reward(key: str, reward: str | None) -> Iterator[str]:
    if reward and reward not in REWARDS and not re.fullmatch(r"[\w.]+:\w+", reward):
        yield f"'{key}': {reward!r} is none of {', '.join(REWARDS)}, nor package.module:function"
