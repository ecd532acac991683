"""Score responses: those of a step for training, and greedy ones to held-out problems for the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING

from vime_runtime.batch import Response, RolloutBatch
from vime_runtime.logging.event_log import EventLog, ScoredResponse
from vime_runtime.spec import metrics

if TYPE_CHECKING:
    from vime_runtime.cluster.groups import EngineGroup
    from vime_runtime.data.problems import Problem
    from vime_runtime.data.rewards import Reward


class Scorer:
    """Decode responses and call the reward function."""

    def __init__(self, decode: Callable[[list[int]], str], reward: Reward, log: EventLog) -> None:
        self._decode = decode
        self._reward = reward
        self._log = log

    def score(self, response: Response, problem: Problem) -> tuple[str, float]:
        """Return the text of a response and its reward."""
        text = self._decode(response.token_ids)
        return text, self._reward(text, problem)

    def batch(self, problems: list[Problem], responses: list[list[Response]], step: int) -> RolloutBatch:
        """Score and log all responses of a step; a group is the responses to one problem."""
        batch = RolloutBatch()
        for group, (problem, samples) in enumerate(zip(problems, responses, strict=True)):
            for index, response in enumerate(samples):
                text, reward = self.score(response, problem)
                scored = ScoredResponse(step, group, problem.prompt, problem.label, response, text, reward)
                self._log.response(scored, sample=index == 0)
                batch.append(problem.prompt_ids, response.token_ids, response.logprobs, reward, group)
        return batch


class Evaluation:
    """Score greedy responses to held-out problems every few steps."""

    def __init__(self, problems: list[Problem], every: int, scorer: Scorer, log: EventLog) -> None:
        """``every`` is in steps; 0 is never."""
        self._problems = problems
        self._every = every
        self._scorer = scorer
        self._log = log

    def due(self, step: int) -> bool:
        """Return True if ``step`` is followed by an evaluation; step 0 is the policy before training."""
        return self._every > 0 and step % self._every == 0

    def run(self, engine: EngineGroup, step: int, row: dict[str, float]) -> None:
        """Evaluate the policy if that is due, and put the mean reward into the row as its score."""
        if not self.due(step):
            return
        with self._log.phase(metrics.EVALUATION, step, row):
            prompts = [problem.prompt_ids for problem in self._problems]
            responses = engine.generate(prompts, samples=1, seed=0, greedy=True)
            row[metrics.EVALUATION_SCORE] = fmean(
                self._scorer.score(response, problem)[1]
                for problem, (response,) in zip(self._problems, responses, strict=True)
            )
