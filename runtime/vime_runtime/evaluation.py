"""Scores the policy on problems that it is never trained on: greedy answers, the reward of the training."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Protocol

from vime_runtime.data.problems import Problem
from vime_runtime.data.rewards import Reward
from vime_runtime.logging.event_log import EventLog
from vime_runtime.rollout.response import Response

SCORE = "evaluation/score"


class Engine(Protocol):
    """What an evaluation asks of the rollout side."""

    def generate(
        self, prompts: list[list[int]], samples: int, seed: int, greedy: bool = False
    ) -> list[list[Response]]: ...


class Evaluation:
    """The held-out problems and when they are asked."""

    def __init__(
        self, problems: list[Problem], every: int, decode: Callable[[list[int]], str], reward: Reward
    ) -> None:
        """``every`` is in steps; 0 is never."""
        self._problems = problems
        self._every = every
        self._decode = decode
        self._reward = reward

    def due(self, step: int) -> bool:
        """Whether the policy is scored after ``step``; step 0 is the policy that the run begins with."""
        return self._every > 0 and step % self._every == 0

    def score(self, engine: Engine) -> float:
        """The mean reward of the likeliest answer to every problem. The engine is awake."""
        answers = engine.generate([p.prompt_ids for p in self._problems], samples=1, seed=0, greedy=True)
        return fmean(
            self._reward(self._decode(response.token_ids), problem)
            for problem, (response,) in zip(self._problems, answers, strict=True)
        )

    def report(self, engine: Engine, step: int, journal: EventLog, row: dict[str, float]) -> None:
        """Score the policy if it is due and put the score into the row of the step."""
        if self.due(step):
            with journal.phase("evaluation", step, row):
                row[SCORE] = self.score(engine)
