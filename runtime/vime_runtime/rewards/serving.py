"""The part of a reward process that calls the reward functions."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import sys
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from vime_runtime.data import reasoning_gym
from vime_runtime.rewards import functions
from vime_runtime.rewards.extraction import ANSWERS
from vime_runtime.rewards.functions import Arguments, RewardFunction, event_loop
from vime_runtime.rewards.process import END_WITH_STACK
from vime_runtime.rewards.user_error import UserError
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

_IMPORT_HINT = (
    "give package.module:function; it must be installed, on PYTHONPATH or in the current directory, and may "
    "only write to its temporary folder and use no network unless data.reward_isolated = false"
)


class Worker:
    """Score the responses that the driver sends over a socket."""

    def __init__(self, fd: int) -> None:
        self._requests = os.fdopen(fd, "rb")
        self._replies = os.fdopen(os.dup(fd), "wb")
        self._pid = os.getpid()
        self._sets: dict[str, _ScoredSet] = {}

    def serve(self, possible: list[str]) -> None:
        """Load the functions and score until the driver closes the socket.

        Args:
            possible: what the process could do because the platform refused to restrict it.
        """
        faulthandler.enable(all_threads=False)
        faulthandler.register(END_WITH_STACK, all_threads=False)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        try:
            for name, table in self._request()["sets"].items():
                self._sets[name] = _ScoredSet(DataTable.model_validate(table))
        except UsageError as e:
            self._reply({"refused": {"message": e.message, "hint": e.hint}})
            return
        ready = {name: {"form": one.function.form, "takes": one.takes} for name, one in self._sets.items()}
        self._reply({"ready": ready, "possible": possible})
        while request := self._request():
            self._score(request)

    def _score(self, request: dict[str, Any]) -> None:
        """Reply once for each response of a request."""
        one = self._sets[request["set"]]
        function, problem = one.function, request["problem"]
        to_score: list[tuple[int, Arguments]] = []
        for index, response in zip(request["indices"], request["responses"], strict=True):
            arguments = one.arguments(problem, response)
            if arguments is None:
                self._reply({"index": index, "reward": 0.0})
            else:
                to_score.append((index, arguments))
        if function.form == "concurrent":
            event_loop().run_until_complete(self._score_concurrently(function, to_score))
        elif function.form == "batch":
            self._score_batch(function, to_score)
        else:
            for index, arguments in to_score:
                try:
                    self._reply({"index": index, "reward": function.score(arguments)})
                except BaseException as e:  # SystemExit too
                    self._fail(index, function, e)

    def _score_batch(self, function: RewardFunction, to_score: list[tuple[int, Arguments]]) -> None:
        if not to_score:
            return
        try:
            rewards = function.score_batch([arguments for _, arguments in to_score])
        except BaseException as e:
            for index, _ in to_score:
                self._fail(index, function, e)
            return
        for (index, _), reward in zip(to_score, rewards, strict=True):
            self._reply({"index": index, "reward": reward})

    async def _score_concurrently(
        self, function: RewardFunction, to_score: list[tuple[int, Arguments]]
    ) -> None:
        async def score(index: int, arguments: Arguments) -> None:
            try:
                self._reply({"index": index, "reward": await function.score_async(arguments)})
            except BaseException as e:
                self._fail(index, function, e)

        await asyncio.gather(*(score(*one) for one in to_score))

    def _fail(self, index: int, function: RewardFunction, error: BaseException) -> None:
        self._reply({"index": index, "error": asdict(UserError.of(error, function.function))})

    def _request(self) -> dict[str, Any]:
        """Return the next message of the driver; an empty one when it has closed the socket."""
        line = self._requests.readline()
        request: dict[str, Any] = json.loads(line) if line else {}
        return request

    def _reply(self, message: dict[str, Any]) -> None:
        if os.getpid() != self._pid:
            os._exit(1)  # a fork of the user's code that returned
        self._replies.write(json.dumps(message).encode() + b"\n")
        self._replies.flush()


class _ScoredSet:
    """The problems of one set: their function, and where its arguments are from."""

    def __init__(self, data: DataTable) -> None:
        """Load the function. Raises UsageError."""
        try:
            self.function = functions.load(data)
        except UsageError:
            raise
        except BaseException as e:  # a user's module can raise anything while it is imported
            error = UserError.of(e)
            where = f" ({error.where})" if error.where else ""
            raise UsageError(
                f"reward {data.reward!r} cannot be imported: {error.message}{where}", _IMPORT_HINT
            ) from e
        self._extract = ANSWERS[data.answer]
        self._entry = None
        # What the driver must send.
        self.takes = list(self.function.takes)
        if "row" in self.takes and data.task is not None:
            task = reasoning_gym.create(data.path, data.settings)
            self._entry = lru_cache(maxsize=1)(task.__getitem__)
            self.takes.append("index")

    def arguments(self, problem: Arguments, response: Arguments) -> Arguments | None:
        """Return the arguments of a response; None if it lacks the answer that the function takes."""
        arguments = {**problem, **response}
        if self._entry:
            arguments["row"] = self._entry(problem["index"])
        if "answer" in self.function.takes:
            arguments["answer"] = self._extract(response["response"])
            if arguments["answer"] is None:
                return None
        return arguments
