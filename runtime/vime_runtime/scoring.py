"""Score responses: those of a step for training, and those to held-out problems for the evaluation."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from vime_runtime.batch import Response, RolloutBatch
from vime_runtime.logging.event_log import EventLog, ScoredResponse
from vime_runtime.rewards.pool import TRAINING_SET, RewardPool
from vime_runtime.rewards.score import Score
from vime_runtime.spec import metrics
from vime_runtime.spec.errors import RewardFailed
from vime_runtime.spec.recipe import AlgorithmTable, EvaluationTable

if TYPE_CHECKING:
    from vime_runtime.cluster.groups import EngineGroup
    from vime_runtime.data.problems import Problem


@dataclass(frozen=True)
class SampledGroup:
    """The responses to one problem. ``scores`` has one score for each, once they are computed."""

    problem: Problem
    responses: list[Response]
    scores: Future[list[Score]]


def sampling_seeds(count: int, *key: object) -> list[int]:
    """Return ``count`` seeds that depend on nothing but ``key``; different keys share none.

    >>> sampling_seeds(2, 0, "step", 1) != sampling_seeds(2, 1, "step", 0)
    True
    """
    # A seed that is text gives the same numbers in every process, unlike the hash of a tuple.
    numbers = random.Random(" ".join(map(str, key)))  # nosec B311 # seeds of sampling, repeatable
    return [numbers.getrandbits(31) for _ in range(count)]


class Scorer:
    """Score responses in the reward processes, and count the failures."""

    def __init__(self, pool: RewardPool, max_failures: float, log: EventLog) -> None:
        """``max_failures`` is the fraction of the responses of a step whose scoring may fail."""
        self._pool = pool
        self._max_failures = max_failures
        self._log = log
        self._reported: set[tuple[str, str]] = set()

    def start(
        self,
        problems: list[Problem],
        samples: Iterable[tuple[int, list[Response]]],
        name: str = TRAINING_SET,
    ) -> list[SampledGroup]:
        """Start to score each group as soon as it is sampled. Returns them in the order of the problems.

        Args:
            samples: index of a problem, and the responses to it.
            name: the set that the problems are from.
        """
        groups = {
            index: SampledGroup(
                problems[index], responses, self._pool.submit(name, problems[index], responses)
            )
            for index, responses in samples
        }
        return [groups[index] for index in range(len(problems))]

    def batch(self, groups: list[SampledGroup], step: int, row: dict[str, float]) -> RolloutBatch:
        """Wait for the scores of a step, log every response, and put the failures into the row.

        Raises:
            RewardFailed: too many responses could not be scored.
        """
        batch = RolloutBatch()
        for index, scored in self.scored(groups, step, row):
            response = scored.response
            self._log.response(scored, sample=index == 0)
            batch.append(
                groups[scored.group].problem.prompt_ids,
                response.token_ids,
                response.logprobs,
                scored.reward,
                scored.group,
                response.truncated,
            )
        return batch

    def scored(
        self, groups: list[SampledGroup], step: int, row: dict[str, float]
    ) -> Iterator[tuple[int, ScoredResponse]]:
        """Wait for the scores; yield index in its group, and reward, of each response.

        The row gets the number of failures. Raises RewardFailed if they are too many.
        """
        scores = [group.scores.result() for group in groups]
        self._count_failures([score for each in scores for score in each], step, row)
        for number, (group, each) in enumerate(zip(groups, scores, strict=True)):
            problem = group.problem
            for index, (response, score) in enumerate(zip(group.responses, each, strict=True)):
                yield (
                    index,
                    ScoredResponse(
                        step, number, problem.prompt, problem.label, response, response.text, score.reward
                    ),
                )

    def _count_failures(self, scores: list[Score], step: int, row: dict[str, float]) -> None:
        errors = [score.error for score in scores if score.error]
        timeouts = sum(error.kind == "timeout" for error in errors)
        for key, count in (
            (metrics.REWARD_TIMEOUTS, timeouts),
            (metrics.REWARD_ERRORS, len(errors) - timeouts),
        ):
            row[key] = row.get(key, 0) + count
        if not errors:
            return
        first, extent = errors[0], f"{len(errors)} of {len(scores)} responses of step {step} are not scored"
        if len(errors) > self._max_failures * len(scores):
            raise RewardFailed(
                f"{first.message}; {extent}",
                "correct the reward function, or raise data.reward_timeout or data.max_reward_failures; "
                "what the reward processes printed is in logs/rewards.log",
                where=first.where,
                traceback=first.traceback,
            )
        if (first.kind, first.where) not in self._reported:  # metrics count those that are like it
            self._reported.add((first.kind, first.where))
            where = f", {first.where}" if first.where else ""
            self._log.warn(f"reward: {first.message}{where}; {extent}: their reward is 0")


class Evaluation:
    """Score answers to held-out problems every few steps."""

    def __init__(
        self,
        sets: dict[str, list[Problem]],
        settings: EvaluationTable,
        algorithm: AlgorithmTable,
        scorer: Scorer,
        log: EventLog,
    ) -> None:
        self._sets = sets
        self._settings = settings
        self._seed = algorithm.seed
        self._scorer = scorer
        self._log = log

    def due(self, step: int) -> bool:
        """Return True if ``step`` is followed by an evaluation; step 0 is the policy before training."""
        return self._settings.every > 0 and step % self._settings.every == 0

    def run(self, engine: EngineGroup, step: int, row: dict[str, float]) -> None:
        """Evaluate the policy if that is due, and put the mean reward of each set into the row.

        Raises:
            RewardFailed: too many answers to a set could not be scored.
        """
        if not self.due(step):
            return
        with self._log.phase(metrics.EVALUATION, step, row):
            scores = {name: self._score(engine, name, step, row) for name in self._sets}
        for name, score in scores.items():
            row[metrics.evaluation_score(name)] = score
        row[metrics.EVALUATION_SCORE] = fmean(scores.values())

    def _score(self, engine: EngineGroup, name: str, step: int, row: dict[str, float]) -> float:
        problems = self._sets[name]
        prompts = [problem.prompt_ids for problem in problems]
        # The same seeds at every step: scores differ by the policy alone.
        seeds = sampling_seeds(len(problems), self._seed, "evaluation", name)
        samples = engine.generate(prompts, self._settings.samples, seeds, self._settings.temperature)
        groups = self._scorer.start(problems, samples, name)
        rewards = []
        for _, scored in self._scorer.scored(groups, step, row):
            self._log.answer(name, scored)
            rewards.append(scored.reward)
        return fmean(rewards)
