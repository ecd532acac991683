"""Runs the loop with a fake trainer, engine and checkpoint manager."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import Response
from vime_runtime.data.problems import Problem, ProblemStream
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.rewards.score import Score
from vime_runtime.scoring import Evaluation, Scorer
from vime_runtime.spec.errors import LogprobDifference
from vime_runtime.spec.recipe import EvaluationTable
from vime_runtime.train_loop import MemoryMeter, RuntimeContext, train_loop

from harness.run_config import make_run_config

PROBLEMS = [Problem([i], f"{i}?", str(i)) for i in range(6)]


class Recorder:
    """Trainer, engine and checkpoint manager in one: records the calls and runs the hook of a call."""

    def __init__(self, hooks: dict[str, Callable[[], None]]) -> None:
        self.calls: list[str] = []
        self.seeds: list[list[int]] = []
        self._hooks = hooks

    def _record(self, call: str) -> None:
        self.calls.append(call)
        self._hooks.get(call, lambda: None)()

    def generate(
        self, prompts: list[list[int]], samples: int, seeds: list[int], temperature: float | None = None
    ) -> Iterator[tuple[int, list[Response]]]:
        if temperature is None:
            self.seeds.append(seeds)
        self._record("generate" if temperature is None else "evaluate")
        for index in reversed(range(len(prompts))):  # groups finish in any order
            yield (
                index,
                [Response([*prompts[index], 1], [-0.5, -0.5], "stop", str(prompts[index][0]))] * samples,
            )

    def step(self, batch: Any) -> dict[str, float]:
        self._record("train")
        return {"train/loss": 0.5, "logprob/abs_diff_mean": 0.25, "logprob/abs_diff_max": 2.0}

    def write(self, trainer: Any, step: int, row: dict[str, float], evaluated: bool) -> None:
        self._record(f"write {step}")

    def publish(self, step: int, row: dict[str, float]) -> None:
        self._record(f"publish {step}")

    def memory_usage(self) -> MemoryUsage:
        return MemoryUsage(10, reclaimable=3)

    def __getattr__(self, method: str) -> Callable[..., None]:
        """Return any other method: resume, pause, sleep and wake."""
        return lambda *tags: self._record(" ".join((method, *tags)))

    def sync(self, trainer: Any, engine: Any) -> int:
        self._record("sync")
        return 8


class FakePool:
    """Scores at once: 1 for the label."""

    def submit(self, name: str, problem: Problem, responses: list[Response]) -> Future[list[Score]]:
        future: Future[list[Score]] = Future()
        future.set_result([Score(float(response.text == problem.label)) for response in responses])
        return future


def request_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[Recorder, list[dict[str, float]]]]]:
    """Return a function that runs the loop with hooks and returns the recorder and the rows of metrics."""
    before = signal.getsignal(signal.SIGTERM)

    def start(
        hooks: dict[str, Callable[[], None]], first: int = 1, steps: int = 2, every: int = 0, **algorithm: Any
    ) -> tuple[Recorder, list[dict[str, float]]]:
        stop = StopRequest()
        stop.listen()
        fake: Any = Recorder(hooks)
        log = EventLog(tmp_path, steps)
        pool: Any = FakePool()
        scorer = Scorer(pool, 0.0, log)
        config = make_run_config({"recipe": {"algorithm": {"seed": 70, **algorithm}}, "steps": steps})
        context = RuntimeContext(
            config=config,
            trainer=fake,
            engine=fake,
            problems=ProblemStream(PROBLEMS[2:], 2, seed=0),
            scorer=scorer,
            evaluation=Evaluation(
                {"held-out": PROBLEMS[:2]},
                EvaluationTable(every=every),
                config.recipe.algorithm,
                scorer,
                log,
            ),
            checkpoints=fake,
            memory=MemoryMeter(fake, fake, lambda: 100),
            log=log,
            stop=stop,
            sync=fake.sync,
        )
        try:
            train_loop(context, first)
        except KeyboardInterrupt:
            fake.calls.append("stopped")
        except LogprobDifference as e:
            fake.calls.append(e.message)
        log.close()
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return fake, rows

    yield start
    signal.signal(signal.SIGTERM, before)


STEP = ["sleep", "resume", "train", "write 1", "wake weights", "sync", "pause", "wake kv_cache", "publish 1"]


def test_a_step_hands_the_devices_over_and_logs_its_metrics(run: Any) -> None:
    recorder, rows = run({}, steps=1)
    assert recorder.calls == ["generate", *STEP]
    assert rows[0]["train/loss"] == 0.5
    assert rows[0]["reward/mean"] == 1
    assert "evaluation/score" not in rows[0]


def test_the_first_response_of_each_group_is_an_event(run: Any, tmp_path: Path) -> None:
    run({}, steps=1)
    events = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    samples = [event for event in events if event["kind"] == "sample"]
    assert len(samples) == 2
    assert all(sample["prompt"] == f"{sample['response']}?" and sample["reward"] == 1 for sample in samples)


def test_the_peak_excludes_released_memory(run: Any) -> None:
    _, rows = run({}, steps=1)
    assert rows[0]["memory/peak_bytes"] == 100 - 2 * 3
    assert rows[0]["memory/train_paused_bytes"] == rows[0]["memory/rollout_active_bytes"] == 10


def test_a_resumed_run_uses_the_seeds_of_its_steps(run: Any) -> None:
    whole = run({}, steps=4)[0].seeds
    assert len({seed for seeds in whole for seed in seeds}) == 4 * 2
    recorder, rows = run({}, first=3, steps=4)
    assert recorder.seeds == whole[2:]
    assert [row["step"] for row in rows][-2:] == [3, 4]
    assert run({}, first=5, steps=4)[0].calls == []


def test_the_evaluation_uses_the_new_weights(run: Any) -> None:
    recorder, rows = run({}, every=2)
    assert recorder.calls[-3:] == ["wake kv_cache", "evaluate", "publish 2"]
    assert [row.get("evaluation/score") for row in rows] == [None, 1.0]


def test_a_stop_request_interrupts_a_rollout(run: Any) -> None:
    second = iter([lambda: None, request_stop])
    recorder, rows = run({"generate": lambda: next(second)()})
    assert recorder.calls == ["generate", *STEP, "generate", "stopped"]
    assert [row["step"] for row in rows] == [1]


@pytest.mark.parametrize("call", STEP)
def test_a_stop_request_after_the_rollout_lets_the_step_finish(run: Any, call: str) -> None:
    recorder, rows = run({call: request_stop})
    assert recorder.calls == ["generate", *STEP, "stopped"]
    assert [row["step"] for row in rows] == [1]


def test_log_probabilities_that_differ_too_much_end_the_run_before_the_step_is_used(run: Any) -> None:
    recorder, rows = run({}, max_logprob_difference=0.2)
    assert recorder.calls == [
        "generate",
        *STEP[:3],
        "step 1: the log-probabilities of trainer and engine differ by 0.25 nats per token (largest: 2), "
        "more than algorithm.max_logprob_difference = 0.2; the step was not saved",
    ]
    assert rows == []
    assert len(run({}, max_logprob_difference=0.25)[1]) == 2
