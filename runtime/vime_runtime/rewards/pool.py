"""A pool of processes that score responses."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vime_runtime.batch import Response
from vime_runtime.spec.recipe import DataTable

if TYPE_CHECKING:
    from vime_runtime.data.problems import Problem

# Name of the set of problems to train on.
TRAINING_SET = "train"


@dataclass(frozen=True)
class RewardError:
    """Why a response could not be scored.

    Attributes:
        kind: "timeout", "exception", or "crash" if the process ended.
        message: type and message of the exception, or how the process ended.
        where: "FILE:LINE in FUNCTION" of the user's code; empty if unknown.
        traceback: the user's part of it; empty without an exception.
    """

    kind: Literal["timeout", "exception", "crash"]
    message: str
    where: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Score:
    """The reward of one response; 0 with an ``error``."""

    reward: float
    error: RewardError | None = None


class RewardPool:
    """The reward processes of a run."""

    def __init__(self, sets: Mapping[str, DataTable]) -> None:
        """``sets`` say how the problems of each set are scored."""
        from vime_runtime.data import rewards

        self._rewards = {name: rewards.get(data) for name, data in sets.items()}

    def submit(self, name: str, problem: Problem, responses: list[Response]) -> Future[list[Score]]:
        """Start to score the responses to a problem of the set ``name``."""
        future: Future[list[Score]] = Future()
        reward = self._rewards[name]
        future.set_result([Score(reward(response.text, problem)) for response in responses])
        return future

    def close(self) -> None:
        """End the processes."""
