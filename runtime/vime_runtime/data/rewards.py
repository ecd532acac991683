"""How a response is scored: which part of it is the answer, and what that is worth."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from vime_runtime.data import reasoning_gym
from vime_runtime.data.problems import Problem
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

# (response, problem) to a number.
Reward = Callable[[str, Problem], float]
# (answer, label) to a number.
Score = Callable[[str, str], float]

# A sign only where nothing stands before it that it would be subtracted from.
_NUMBER = re.compile(r"(?:(?<![\w)])-)?\d+(?:,\d{3})*(?:\.\d+)?")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def get(data: DataTable) -> Reward:
    """Return the reward function that ``[data]`` describes.

    ``data.answer`` names the part of a response that is scored: a response without it gets 0.
    ``data.reward`` is ``exact-match``, ``math-verify``, ``verifier``, or ``package.module:function``, found
    the way Python finds modules: installed, on ``PYTHONPATH`` or in the current directory.

    Raises:
        UsageError: the name leads to no function of two texts, or the data has no verifier.
    """
    extract = ANSWERS[data.answer]
    if data.reward == "verifier":
        return _verifier(data, extract)
    score = _score(data.reward)

    def reward(response: str, problem: Problem) -> float:
        answer = extract(response)
        return 0.0 if answer is None else score(answer, problem.label)

    return reward


def last_number(response: str) -> str | None:
    """The last number in a text, without commas between its digits; None when there is none."""
    found = _NUMBER.findall(response)
    return found[-1].replace(",", "") if found else None


def tagged(response: str) -> str | None:
    """What stands between the last ``<answer>`` and ``</answer>``; None when there is no such pair."""
    found = _TAG.findall(response)
    return found[-1].strip() if found else None


ANSWERS: dict[str, Callable[[str], str | None]] = {
    "whole": lambda response: response,
    "last-number": last_number,
    "tag": tagged,
}


def _verifier(data: DataTable, extract: Callable[[str], str | None]) -> Reward:
    if not reasoning_gym.is_task(data.path):
        raise UsageError(
            "data.reward = 'verifier', but the data is a file and has none", "set data.reward = 'exact-match'"
        )
    task = reasoning_gym.create(data.path, data.settings)

    def reward(response: str, problem: Problem) -> float:
        answer = extract(response)
        if answer is None:
            return 0.0
        if problem.entry is None:
            raise ValueError(f"the verifier of {data.path} cannot judge a problem from elsewhere")
        try:
            return float(task.score_answer(answer, problem.entry))
        except Exception:  # several of the library's verifiers raise on an answer that they cannot read
            return 0.0

    return reward


def _score(name: str) -> Score:
    if name == "exact-match":
        return exact_match
    if name == "math-verify":
        return _math_verify()
    return _own_function(name)


def exact_match(response: str, label: str) -> float:
    """1.0 when both texts are the same but for white space at the ends, else 0.0."""
    return float(response.strip() == label.strip())


def _math_verify() -> Score:
    """Equality of mathematical values, judged by the library math-verify.

    The reward may only be called from the main thread: the library bounds its own time by an alarm signal.
    """
    try:
        import math_verify
    except ImportError as e:
        raise UsageError(f"reward math-verify: {e}", "install the package math-verify") from e

    @lru_cache(maxsize=1024)  # a label is asked for once for every sample of its group
    def parse_label(label: str) -> list[Any]:
        # The whole label is the answer, but bare LaTeX is only recognised inside an environment.
        marked = "$" in label or "\\boxed" in label
        return math_verify.parse(label if marked else f"\\boxed{{{label}}}")

    def reward(response: str, label: str) -> float:
        # Not symmetric: the first argument is the label.
        return float(math_verify.verify(parse_label(label), math_verify.parse(response)))

    return reward


def _own_function(name: str) -> Score:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UsageError(
            f"unknown reward {name!r}",
            "known: exact-match, math-verify, verifier, or your own package.module:function",
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as e:  # whatever a user's module raises while it is imported
        raise UsageError(
            f"reward {name!r}: importing {module_name} failed: {type(e).__name__}: {e}",
            "the module must be installed, on PYTHONPATH or in the current directory",
        ) from e
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "no such name" if function is None else f"a {type(function).__name__}"
        raise UsageError(
            f"reward {name!r}: expected a function, found {found}", f"looked in {module.__file__}"
        )
    try:
        inspect.signature(function).bind("response", "label")
    except TypeError as e:
        raise UsageError(
            f"reward {name!r}: cannot be called with (response, label): {e}",
            "define it as (response: str, label: str) -> float",
        ) from e

    def reward(response: str, label: str) -> float:
        value = float(function(response, label))
        if not math.isfinite(value):
            raise ValueError(f"reward {name!r} returned {value} for response {response!r}, label {label!r}")
        return value

    return reward
