"""The algorithm on one page: colocated GRPO. Trainer and engine take turns on the same devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vime_runtime.checkpoint.manager import CheckpointManager
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog, timed
from vime_runtime.scoring import Evaluation, SampledGroup, Scorer, sampling_seeds
from vime_runtime.spec import metrics
from vime_runtime.spec.errors import LogprobDifference
from vime_runtime.spec.run_config import RunConfig

if TYPE_CHECKING:
    from vime_runtime.cluster.groups import EngineGroup, TrainerGroup
    from vime_runtime.data.problems import ProblemStream

# Copies all weights from the trainer to the engine and returns their bytes.
Sync = Callable[["TrainerGroup", "EngineGroup"], int]


@dataclass
class RuntimeContext:
    """The parts of a run that the loop works with."""

    config: RunConfig
    trainer: TrainerGroup
    engine: EngineGroup
    problems: ProblemStream
    scorer: Scorer
    evaluation: Evaluation
    checkpoints: CheckpointManager
    memory: MemoryMeter
    log: EventLog
    stop: StopRequest
    sync: Sync


def train_loop(context: RuntimeContext, first: int = 1) -> None:
    """Run the steps from ``first`` to ``config.steps``.

    Before and after each step the engine has the devices and the trainer's weights; the trainer is offloaded.

    Raises:
        KeyboardInterrupt: a stop request. It interrupts a rollout; a step whose rollout is complete is
            finished first, with its metrics and its state.
        LogprobDifference: see ``check_logprobs``. The step is neither saved nor passed on to the engine.
    """
    trainer, engine, log = context.trainer, context.engine, context.log
    for step in range(first, context.config.steps + 1):
        row: dict[str, float] = {metrics.STEP: step}
        started = time.perf_counter()

        # 1. The engine samples responses. A group is scored while the next ones are sampled.
        with log.phase(metrics.ROLLOUT, step, row):
            groups = sample_groups(context, step)
        with log.phase(metrics.REWARD, step, row):
            batch = context.scorer.batch(groups, step, row)

        with context.stop.deferred():
            context.memory.measure(row, metrics.TRAIN_PAUSED_BYTES, metrics.ROLLOUT_ACTIVE_BYTES)
            # 2. The engine sleeps, and the trainer's memory becomes resident.
            with timed(row, metrics.SLEEP):
                engine.sleep()
            with timed(row, metrics.WAKE):
                trainer.resume()
            # 3. Log-probabilities, GRPO loss, backward pass, optimizer step.
            with log.phase(metrics.TRAIN, step, row):
                row |= trainer.step(batch)
            check_logprobs(context.config.recipe.algorithm.max_logprob_difference, step, row)
            context.memory.measure(row, metrics.TRAIN_ACTIVE_BYTES, metrics.ROLLOUT_PAUSED_BYTES)
            context.checkpoints.write(trainer, step, row, evaluated=context.evaluation.due(step))
            # 4.-6. The trainer exports its weights, the engine loads them and gets the devices.
            update_engine(context, step, row)

            context.evaluation.run(engine, step, row)
            row |= batch.metrics()
            row[metrics.seconds(metrics.WHOLE_STEP)] = time.perf_counter() - started
            log.metrics(row)
            context.checkpoints.publish(step, row)


def sample_groups(context: RuntimeContext, step: int) -> list[SampledGroup]:
    """Sample the responses to the problems of a step, and start to score them."""
    settings = context.config.recipe.algorithm
    problems = context.problems.batch(step)
    seeds = sampling_seeds(len(problems), settings.seed, "step", step)
    prompts = [problem.prompt_ids for problem in problems]
    samples = context.engine.generate(prompts, settings.samples_per_prompt, seeds)
    return context.scorer.start(problems, samples)


def check_logprobs(limit: float | None, step: int, row: dict[str, float]) -> None:
    """Raise LogprobDifference if trainer and engine differ by more than ``limit``, in nats per token."""
    mean = row[metrics.LOGPROB_ABS_DIFF_MEAN]
    if limit is not None and mean > limit:
        raise LogprobDifference(
            f"step {step}: the log-probabilities of trainer and engine differ by {mean:.4g} nats per token "
            f"(largest: {row[metrics.LOGPROB_ABS_DIFF_MAX]:.4g}), more than "
            f"algorithm.max_logprob_difference = {limit:g}; the step was not saved",
            "if rollout.top_p, top_k or min_p truncates the distribution, the difference includes that; "
            'otherwise try model.dtype = "float32" and rollout.eager = true, remove arguments of '
            "[rollout.engine], and see docs/explanation/algorithm.md",
        )


def update_engine(context: RuntimeContext, step: int, row: dict[str, float]) -> None:
    """Copy the weights to the engine and hand the devices over.

    Before, the trainer is resident and the engine sleeps. Afterwards the trainer is offloaded and the engine
    can generate.
    """
    with timed(row, metrics.WAKE):
        context.engine.wake("weights")
    with context.log.phase(metrics.SYNC, step, row):
        row[metrics.SYNC_BYTES] = context.sync(context.trainer, context.engine)
    with timed(row, metrics.SLEEP):
        context.trainer.pause()
    with timed(row, metrics.WAKE):
        context.engine.wake("kv_cache")


def sync_weights(trainer: TrainerGroup, engine: EngineGroup) -> int:
    """Copy all weights from the trainer to the engine, bucket by bucket; return their bytes."""
    copied = 0
    engine.begin_update()
    while (bucket := trainer.next_bucket()) is not None:
        engine.update(bucket)
        copied += bucket.payload_bytes
    engine.end_update()
    return copied


class MemoryMeter:
    """Measure the memory of trainer and engine twice a step, and the peak of the run, in bytes."""

    def __init__(self, trainer: TrainerGroup, engine: EngineGroup, resident_bytes: Callable[[], int]) -> None:
        """``resident_bytes`` returns the memory of all processes of the run."""
        self._trainer = trainer
        self._engine = engine
        self._resident_bytes = resident_bytes
        self._peak = 0

    def measure(self, row: dict[str, float], trainer_key: str, engine_key: str) -> None:
        """Put the resident bytes of trainer and engine into the row. The peak excludes released memory."""
        trainer, engine = self._trainer.memory_usage(), self._engine.memory_usage()
        reclaimable = trainer.reclaimable + engine.reclaimable
        self._peak = max(self._peak, self._resident_bytes() - reclaimable)
        row |= {trainer_key: trainer.resident, engine_key: engine.resident, metrics.PEAK_BYTES: self._peak}
