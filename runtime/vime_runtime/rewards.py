"""How a response is scored against its label: two rewards by name, or a user's own function."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from vime_runtime.errors import InputError

Reward = Callable[[str, str], float]


def get(name: str) -> Reward:
    """Return the reward function ``(response, label) -> float`` that ``data.reward`` names.

    ``name`` is ``exact-match``, ``math-verify``, or ``package.module:function``, found the way
    Python finds modules: installed, on ``PYTHONPATH`` or in the current directory.

    Raises:
        InputError: the name leads to no function of two texts.
    """
    if name == "exact-match":
        return exact_match
    if name == "math-verify":
        return _math_verify()
    return _own_function(name)


def exact_match(response: str, label: str) -> float:
    """1.0 when both texts are the same but for white space at the ends, else 0.0."""
    return float(response.strip() == label.strip())


def _math_verify() -> Reward:
    """Equality of mathematical values, judged by the library math-verify.

    The reward may only be called from the main thread: the library bounds its own time by an alarm signal.
    """
    try:
        import math_verify
    except ImportError as e:
        raise InputError(f"reward math-verify: {e}", "install the package math-verify") from e

    @lru_cache(maxsize=1024)  # a label is asked for once for every sample of its group
    def parse_label(label: str) -> list[Any]:
        # The whole label is the answer, but bare LaTeX is only recognised inside an environment.
        marked = "$" in label or "\\boxed" in label
        return math_verify.parse(label if marked else f"\\boxed{{{label}}}")

    def reward(response: str, label: str) -> float:
        # Not symmetric: the first argument is the label.
        return float(math_verify.verify(parse_label(label), math_verify.parse(response)))

    return reward


def _own_function(name: str) -> Reward:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise InputError(
            f"unknown reward {name!r}", "known: exact-match, math-verify, or your own package.module:function"
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as e:  # whatever a user's module raises while it is imported
        raise InputError(
            f"reward {name!r}: importing {module_name} failed: {type(e).__name__}: {e}",
            "the module must be installed, on PYTHONPATH or in the current directory",
        ) from e
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "no such name" if function is None else f"a {type(function).__name__}"
        raise InputError(
            f"reward {name!r}: expected a function, found {found}", f"looked in {module.__file__}"
        )
    try:
        inspect.signature(function).bind("response", "label")
    except TypeError as e:
        raise InputError(
            f"reward {name!r}: cannot be called with (response, label): {e}",
            "define it as (response: str, label: str) -> float",
        ) from e

    def reward(response: str, label: str) -> float:
        value = float(function(response, label))
        if not math.isfinite(value):
            raise ValueError(f"reward {name!r} returned {value} for response {response!r}, label {label!r}")
        return value

    return reward
