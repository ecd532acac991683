"""Reward functions by name, and how a function of the user is called."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import pkgutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from vime_runtime.data import reasoning_gym
from vime_runtime.rewards.extraction import equal_numbers, equal_texts
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import REWARDS, DataTable

# What a function may name, for one response, and for all responses of a message.
ARGUMENTS = ("answer", "label", "row", "prompt", "response", "finish_reason", "tokens")
BATCH_ARGUMENTS = ("answers", "labels", "rows", "prompts", "responses", "finish_reasons", "token_lists")
# A larger reward is a defect of the function, and would make advantages meaningless.
MAX_REWARD = 1e6

_CALL_HINT = (
    f"give a function of two arguments, or name any of {', '.join(ARGUMENTS)}; for a whole group "
    f"{', '.join(BATCH_ARGUMENTS)}"
)

# How responses are scored: one after the other, all in one call, or concurrently as coroutines.
Form = Literal["single", "batch", "concurrent"]
# The arguments of one response, by name.
Arguments = dict[str, Any]


@dataclass(frozen=True)
class RewardFunction:
    """A function and how to call it.

    Attributes:
        takes: the arguments that it gets, as named in ``ARGUMENTS``.
        positional: it gets (answer, label) by position, and the rest of ``takes`` by name.
    """

    name: str
    function: Callable[..., Any]
    form: Form
    takes: tuple[str, ...]
    positional: bool = False

    def score(self, arguments: Arguments) -> float:
        """Return the reward of one response."""
        result = self._call(arguments)
        if inspect.isawaitable(result):
            result = event_loop().run_until_complete(_awaited(result))
        return self._number(result)

    async def score_async(self, arguments: Arguments) -> float:
        """Return the reward of one response, from a coroutine function."""
        return self._number(await self._call(arguments))

    def score_batch(self, batch: Sequence[Arguments]) -> list[float]:
        """Return the rewards of responses, from one call."""
        plural = dict(zip(ARGUMENTS, BATCH_ARGUMENTS, strict=True))
        result = self.function(**{plural[name]: [one[name] for one in batch] for name in self.takes})
        if inspect.isawaitable(result):
            result = event_loop().run_until_complete(_awaited(result))
        try:
            rewards = list(result)
        except TypeError:
            rewards = []
        if len(rewards) != len(batch):
            raise ValueError(
                f"{self.name} returned {_shown(result)}, expected a list of {len(batch)} numbers"
            )
        return [self._number(reward) for reward in rewards]

    def _call(self, arguments: Arguments) -> Any:
        by_position = ("answer", "label") if self.positional else ()
        by_name = {name: arguments[name] for name in self.takes if name not in by_position}
        return self.function(*(arguments[name] for name in by_position), **by_name)

    def _number(self, value: Any) -> float:
        """Return a result as float. Raises ValueError unless it is a finite number up to MAX_REWARD."""
        try:
            number = math.nan if isinstance(value, str | bytes) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= MAX_REWARD:
            expected = f"a number from -{MAX_REWARD:g} to {MAX_REWARD:g}"
            raise ValueError(f"{self.name} returned {_shown(value)}, expected {expected}")
        return number


def load(data: DataTable) -> RewardFunction:
    """Return the reward function that ``[data]`` describes.

    A function ``package.module:function`` is imported as any module: installed, on ``PYTHONPATH`` or in the
    current directory.

    Raises:
        UsageError: there is no such reward, it cannot be called as documented, or the data has no verifier.
        Exception: what the user's module raised while it was imported.
    """
    name = data.reward
    assert name is not None  # the tool fills it in
    if ":" in name:
        return _user_function(name)
    if name == "exact-match":
        equal = equal_numbers if data.answer == "last-number" else equal_texts
        return _built_in(name, equal)
    if name == "math-verify":
        return _built_in(name, _math_verify())
    if name == "verifier":
        return RewardFunction(name, _verifier(data), "single", ("answer", "index"))
    raise UsageError(f"unknown reward {name!r}", f"known: {', '.join(REWARDS)}; or package.module:function")


def _built_in(name: str, function: Callable[[str, str], Any]) -> RewardFunction:
    return RewardFunction(name, function, "single", ("answer", "label"), positional=True)


def _verifier(data: DataTable) -> Callable[..., float]:
    """Return the verifier of a task. Raises UsageError for data from a file."""
    if data.task is None:
        raise UsageError(
            "data.reward = 'verifier', but the data is a file and has none", "set data.reward = 'exact-match'"
        )
    task = reasoning_gym.create(data.path, data.settings)
    entry = lru_cache(maxsize=1)(task.__getitem__)  # the responses of a group have the same

    def verify(answer: str, index: int) -> float:
        problem = entry(index)
        try:
            return float(task.score_answer(answer, problem))
        except Exception:  # several verifiers of the library raise on an answer that they cannot parse
            return 0.0

    return verify


def _math_verify() -> Callable[[str, str], bool]:
    """Return a comparison of mathematical values with the library math-verify, without its own limits."""
    try:
        import math_verify
    except ImportError as e:
        raise UsageError(f"reward math-verify: {e}", "install the package math-verify") from e
    # It warns that it has no limit: that of the process is enough.
    logging.getLogger(math_verify.__name__).setLevel(logging.ERROR)

    @lru_cache(maxsize=1024)  # every sample of a group has the same label
    def parse_label(label: str) -> list[Any]:
        # The whole label is the answer, but bare LaTeX is only recognized inside an environment.
        marked = "$" in label or "\\boxed" in label
        return parse(label if marked else f"\\boxed{{{label}}}")

    def parse(text: str) -> list[Any]:
        parsed: list[Any] = math_verify.parse(text, parsing_timeout=None)
        return parsed

    def equal(answer: str, label: str) -> bool:
        # Not symmetric: the first argument is the label.
        return bool(math_verify.verify(parse_label(label), parse(answer), timeout_seconds=None))

    return equal


def _user_function(name: str) -> RewardFunction:
    """Import a function ``package.module:function`` and find out what it takes."""
    function = pkgutil.resolve_name(name)
    if not callable(function):
        raise UsageError(f"reward {name!r} is a {type(function).__name__}, not a function", _CALL_HINT)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some functions of C extensions do not tell
        return RewardFunction(name, function, "single", ("answer", "label"), positional=True)
    required = [one.name for one in parameters if one.default is one.empty and one.kind not in _VARIADIC]
    named = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    form: Form = "concurrent" if _is_async(function) else "single"
    takes = tuple(one for one in ARGUMENTS if takes_all or one in named)
    if set(required) <= set(named) & set(ARGUMENTS) and takes:
        return RewardFunction(name, function, form, takes)
    if set(required) <= set(named) & set(BATCH_ARGUMENTS):
        pairs = zip(ARGUMENTS, BATCH_ARGUMENTS, strict=True)
        plural = tuple(one for one, many in pairs if many in named)
        if plural:
            return RewardFunction(name, function, "batch", plural)
    if set(required) & set(BATCH_ARGUMENTS):
        raise UsageError(f"reward {name!r} mixes arguments of one response and of a group", _CALL_HINT)
    by_position = [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY][:2]
    rest = tuple(one for one in takes if one not in ("answer", "label", *by_position))
    try:
        inspect.signature(function).bind("answer", "label", **dict.fromkeys(rest))
    except TypeError as e:
        raise UsageError(
            f"reward {name!r} cannot be called with (answer, label): {e}",
            _CALL_HINT,
        ) from e
    return RewardFunction(name, function, form, ("answer", "label", *rest), positional=True)


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _is_async(function: Callable[..., Any]) -> bool:
    """Return True for a coroutine function, or an object whose ``__call__`` is one."""
    return any(
        inspect.iscoroutinefunction(one) for one in (inspect.unwrap(function), type(function).__call__)
    )


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


@lru_cache(maxsize=1)
def event_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this process. It stays open: a client of a service may be bound to it."""
    return asyncio.new_event_loop()


def _shown(value: Any) -> str:
    """Return a short text of a value and its type."""
    text = repr(value)
    return f"{text[:100]}{'…' if len(text) > 100 else ''} ({type(value).__name__})"
