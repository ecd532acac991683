"""Reward functions: extract the answer from a response and score it."""

from __future__ import annotations

import inspect
import math
import pkgutil
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from vime_runtime.data import reasoning_gym
from vime_runtime.data.problems import Problem
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import REWARDS, DataTable

# (response, problem) to a number.
Reward = Callable[[str, Problem], float]
# (answer, label) to a number.
Score = Callable[[str, str], float]

# A minus is a sign unless it follows an operand: "5-3" ends in 3.
_NUMBER = re.compile(r"(?:(?<![\w)])-)?\d+(?:,\d{3})*(?:\.\d+)?")
# Processor time for parsing a response, and for each comparison with it.
MATH_VERIFY_SECONDS = 5
_NO_LIMIT = 1_000_000
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def get(data: DataTable) -> Reward:
    """Return the reward function that ``[data]`` describes.

    A response without the part that ``data.answer`` names gets 0. A function ``package.module:function`` is
    imported as any module: installed, on ``PYTHONPATH`` or in the current directory.

    Raises:
        UsageError: ``data.reward`` is not a function of two texts, or the data has no verifier.
    """
    extract = ANSWERS[data.answer]
    if data.reward == "verifier":
        return _verifier(data, extract)
    assert data.reward is not None  # the tool fills it in
    score = _score_function(data.reward)

    def reward(response: str, problem: Problem) -> float:
        answer = extract(response)
        return 0.0 if answer is None else score(answer, problem.label)

    return reward


def last_number(response: str) -> str | None:
    """Return the last number in a text, without commas between its digits."""
    found = _NUMBER.findall(response)
    return found[-1].replace(",", "") if found else None


def tagged(response: str) -> str | None:
    """Return the text between the last ``<answer>`` and ``</answer>``."""
    found = _TAG.findall(response)
    return found[-1].strip() if found else None


ANSWERS: dict[str, Callable[[str], str | None]] = {
    "whole": lambda response: response,
    "last-number": last_number,
    "tag": tagged,
}


def _verifier(data: DataTable, extract: Callable[[str], str | None]) -> Reward:
    """Return the reward that the verifier of a task gives. Raises UsageError for data from a file."""
    if data.task is None:
        raise UsageError(
            "data.reward = 'verifier', but the data is a file and has none", "set data.reward = 'exact-match'"
        )
    task = reasoning_gym.create(data.path, data.settings)

    def reward(response: str, problem: Problem) -> float:
        answer = extract(response)
        if answer is None:
            return 0.0
        if problem.entry is None:
            raise ValueError(f"the verifier of {data.path} cannot score a problem of other data")
        try:
            return float(task.score_answer(answer, problem.entry))
        except Exception:  # several verifiers of the library raise on an answer that they cannot parse
            return 0.0

    return reward


def _score_function(name: str) -> Score:
    if name == "exact-match":
        return exact_match
    if name == "math-verify":
        return _math_verify()
    return _user_function(name)


def exact_match(response: str, label: str) -> float:
    """Return 1.0 for equal texts, apart from white space at the ends, else 0.0."""
    return float(response.strip() == label.strip())


def _math_verify() -> Score:
    """Return a score that compares mathematical values with the library math-verify.

    An answer that takes longer than MATH_VERIFY_SECONDS gets 0. The score may only be called from the main
    thread, because a signal ends a comparison.
    """
    try:
        import math_verify
    except ImportError as e:
        raise UsageError(f"reward math-verify: {e}", "install the package math-verify") from e

    @lru_cache(maxsize=1024)  # every sample of a group has the same label
    def parse_label(label: str) -> list[Any]:
        # The whole label is the answer, but bare LaTeX is only recognized inside an environment.
        marked = "$" in label or "\\boxed" in label
        return parse(label if marked else f"\\boxed{{{label}}}")

    def parse(text: str) -> list[Any]:
        parsed: list[Any] = math_verify.parse(text, parsing_timeout=_NO_LIMIT)
        return parsed

    def reward(response: str, label: str) -> float:
        expected = parse_label(label)
        with _processor_time_limit(MATH_VERIFY_SECONDS):
            # Not symmetric: the first argument is the label.
            return float(math_verify.verify(expected, parse(response), timeout_seconds=_NO_LIMIT))

    return reward


@contextmanager
def _processor_time_limit(seconds: float) -> Iterator[None]:
    """Make math-verify give up what it does whenever the process has used another ``seconds`` in a block.

    Its own limits count elapsed time, so the same answer would get another score on a busy machine.
    """
    from math_verify.errors import TimeoutException

    def give_up(*_: object) -> None:
        raise TimeoutException

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _user_function(name: str) -> Score:
    """Import a function ``package.module:function`` of the user and check its results.

    Raises:
        UsageError: it cannot be imported, or not be called with two arguments.
    """
    hint = "give package.module:function; it must be installed, on PYTHONPATH or in the current directory"
    if ":" not in name:
        raise UsageError(f"unknown reward {name!r}", f"known: {', '.join(REWARDS)}; or {hint}")
    try:
        function = pkgutil.resolve_name(name)
    except Exception as e:  # a user's module can raise anything while it is imported
        raise UsageError(f"reward {name!r} cannot be imported: {type(e).__name__}: {e}", hint) from e
    try:
        inspect.signature(function).bind("response", "label")
    except TypeError as e:
        raise UsageError(
            f"reward {name!r} cannot be called with (response, label): {e}",
            "define it as (response: str, label: str) -> float",
        ) from e

    def reward(response: str, label: str) -> float:
        value = float(function(response, label))
        if not math.isfinite(value):
            raise ValueError(f"reward {name!r} returned {value} for response {response!r}, label {label!r}")
        return value

    return reward
