"""The whole algorithm on one page: colocated GRPO, trainer and engine taking turns on the same devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean, pstdev
from typing import Protocol

from vime_runtime.batch import RolloutBatch
from vime_runtime.data.problems import Problem
from vime_runtime.data.rewards import Reward
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog, clock
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.rollout.response import Response
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.message import BucketMessage

Decode = Callable[[list[int]], str]


class TrainSide(Protocol):
    """All trainer ranks as one."""

    def resume(self) -> None: ...
    def pause(self) -> None: ...
    def step(self, batch: RolloutBatch) -> dict[str, float]: ...
    def next_bucket(self) -> BucketMessage | None: ...
    def memory_usage(self) -> MemoryUsage: ...


class RolloutSide(Protocol):
    """All engines as one."""

    def generate(
        self, prompts: list[list[int]], samples: int, seed: int, greedy: bool = False
    ) -> list[list[Response]]: ...
    def sleep(self) -> None: ...
    def wake(self, tag: str) -> None: ...
    def begin_update(self) -> None: ...
    def update(self, bucket: BucketMessage) -> None: ...
    def end_update(self) -> None: ...
    def memory_usage(self) -> MemoryUsage: ...


class ProblemStream(Protocol):
    """The data: which problems belong to a step."""

    def batch(self, step: int) -> list[Problem]: ...


class Evaluation(Protocol):
    """The held-out problems: scores the engine's policy when that is due."""

    def report(self, engine: RolloutSide, step: int, journal: EventLog, row: dict[str, float]) -> None: ...


class CheckpointManager(Protocol):
    """What lasts: the training state, published in step with the metrics."""

    def write(self, step: int, row: dict[str, float]) -> None: ...
    def publish(self, step: int, row: dict[str, float]) -> None: ...


Sync = Callable[[TrainSide, RolloutSide], int]


def sync_weights(trainer: TrainSide, engine: RolloutSide) -> int:
    """Carry every weight from trainer to engine, bucket by bucket. Returns the bytes carried."""
    carried = 0
    engine.begin_update()
    while (bucket := trainer.next_bucket()) is not None:
        engine.update(bucket)
        carried += bucket.payload_bytes
    engine.end_update()
    return carried


def train_loop(
    config: RunConfig,
    trainer: TrainSide,
    engine: RolloutSide,
    problems: ProblemStream,
    decode: Decode,
    reward: Reward,
    evaluation: Evaluation,
    keeper: CheckpointManager,
    journal: EventLog,
    stop: StopRequest,
    resident_bytes: Callable[[], int],
    sync: Sync = sync_weights,
    first: int = 1,
) -> None:
    """Run the steps from ``first`` to ``config.steps``.

    On entry the engine is awake with the trainer's weights and the trainer paused; on return likewise. A
    request to stop breaks a rollout off, but a step whose rollout is done is finished: its metrics and its
    state are kept, the trainer is paused, and KeyboardInterrupt leaves the loop.
    """
    peak = 0
    for step in range(first, config.steps + 1):
        row: dict[str, float] = {"step": step}
        began = time.perf_counter()

        with journal.phase("rollout", step, row):
            asked = problems.batch(step)
            answers = engine.generate(
                [problem.prompt_ids for problem in asked],
                samples=config.recipe.algorithm.samples_per_prompt,
                seed=config.recipe.algorithm.seed + step,
            )
            batch = score(asked, answers, decode, reward, journal, step)

        with stop.deferred():
            memory = trainer.memory_usage(), engine.memory_usage()
            row["memory/train_paused_bytes"] = memory[0].resident
            row["memory/rollout_active_bytes"] = memory[1].resident
            peak = max(peak, resident_bytes() - MemoryUsage.total(memory).reclaimable)

            with clock(row, "sleep"):
                engine.sleep()
            with clock(row, "wake"):
                trainer.resume()
            with journal.phase("train", step, row):
                row |= trainer.step(batch)
            memory = trainer.memory_usage(), engine.memory_usage()
            row["memory/train_active_bytes"] = memory[0].resident
            row["memory/rollout_paused_bytes"] = memory[1].resident
            peak = row["memory/peak_bytes"] = max(peak, resident_bytes() - MemoryUsage.total(memory).reclaimable)
            keeper.write(step, row)

            hand_over(trainer, engine, step, journal, row, sync)
            evaluation.report(engine, step, journal, row)

            row |= batch_metrics(batch)
            row["step/seconds"] = time.perf_counter() - began
            journal.metrics(row)
            keeper.publish(step, row)


def hand_over(
    trainer: TrainSide,
    engine: RolloutSide,
    step: int,
    journal: EventLog,
    row: dict[str, float],
    sync: Sync = sync_weights,
) -> None:
    """Give the engine the trainer's weights and the devices. On entry it sleeps and the trainer is awake."""
    with clock(row, "wake"):
        engine.wake("weights")
    with journal.phase("sync", step, row):
        row["sync/bytes"] = sync(trainer, engine)
    with clock(row, "sleep"):
        trainer.pause()
    with clock(row, "wake"):
        engine.wake("kv_cache")


def score(
    asked: list[Problem],
    answers: list[list[Response]],
    decode: Decode,
    reward: Reward,
    journal: EventLog,
    step: int,
) -> RolloutBatch:
    """Reward every response and lay the step out as one batch; a group is the responses to one prompt."""
    batch = RolloutBatch.empty()
    for group, (problem, responses) in enumerate(zip(asked, answers, strict=True)):
        texts = [decode(response.token_ids) for response in responses]
        for response, text in zip(responses, texts, strict=True):
            points = reward(text, problem)
            journal.rollout(step, group, problem.prompt, problem.label, response, text, points)
            batch.append(
                prompt=problem.prompt_ids,
                response=response.token_ids,
                logprobs=response.logprobs,
                reward=points,
                group=group,
            )
        journal.event(
            "sample",
            step=step,
            prompt=problem.prompt,
            response=texts[0],
            label=problem.label,
            reward=batch.rewards[-len(responses)],
        )
    return batch


def batch_metrics(batch: RolloutBatch) -> dict[str, float]:
    """Metrics of what was sampled: mean and spread of the reward, mean response length in tokens."""
    lengths = [len(response) for response in batch.responses]
    return {
        "reward/mean": fmean(batch.rewards),
        "reward/std": pstdev(batch.rewards),
        "response/length": fmean(lengths),
        "rollout/tokens": sum(lengths),
    }
