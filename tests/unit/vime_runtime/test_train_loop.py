"""Runs the loop with a fake trainer, engine and checkpoint manager."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import Response
from vime_runtime.data.problems import Problem, ProblemStream
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.scoring import Evaluation, Scorer
from vime_runtime.train_loop import MemoryMeter, RuntimeContext, train_loop

from harness.run_config import make_run_config

PROBLEMS = [Problem([i], f"{i}?", str(i)) for i in range(6)]


class Recorder:
    """Trainer, engine and checkpoint manager in one: records the calls and runs the hook of a call."""

    def __init__(self, hooks: dict[str, Callable[[], None]]) -> None:
        self.calls: list[str] = []
        self._hooks = hooks

    def _record(self, call: str) -> None:
        self.calls.append(call)
        self._hooks.get(call, lambda: None)()

    def generate(
        self, prompts: list[list[int]], samples: int, seed: int, greedy: bool = False
    ) -> list[list[Response]]:
        self._record("evaluate" if greedy else f"generate {seed}")
        return [[Response([*prompt, 1], [-0.5, -0.5], "stop")] * samples for prompt in prompts]

    def step(self, batch: Any) -> dict[str, float]:
        self._record("train")
        return {"train/loss": 0.5}

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


def request_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[list[str], list[dict[str, float]]]]]:
    """Return a function that runs the loop with hooks and returns the calls and the rows of metrics."""
    before = signal.getsignal(signal.SIGTERM)

    def start(
        hooks: dict[str, Callable[[], None]], first: int = 1, steps: int = 2, every: int = 0
    ) -> tuple[list[str], list[dict[str, float]]]:
        stop = StopRequest()
        stop.listen()
        fake: Any = Recorder(hooks)
        log = EventLog(tmp_path, steps)
        scorer = Scorer(lambda ids: str(ids[0]), lambda text, problem: float(text == problem.label), log)
        context = RuntimeContext(
            config=make_run_config(
                {"recipe": {"algorithm": {"samples_per_prompt": 2, "seed": 70}}, "steps": steps}
            ),
            trainer=fake,
            engine=fake,
            problems=ProblemStream(PROBLEMS[2:], 2, seed=0),
            scorer=scorer,
            evaluation=Evaluation(PROBLEMS[:2], every, scorer, log),
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
        log.close()
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return fake.calls, rows

    yield start
    signal.signal(signal.SIGTERM, before)


STEP = ["sleep", "resume", "train", "write 1", "wake weights", "sync", "pause", "wake kv_cache", "publish 1"]


def test_a_step_hands_the_devices_over_and_logs_its_metrics(run: Any) -> None:
    calls, rows = run({}, steps=1)
    assert calls == ["generate 71", *STEP]
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
    calls, rows = run({}, first=3, steps=4)
    assert [call for call in calls if call.startswith("generate")] == ["generate 73", "generate 74"]
    assert [row["step"] for row in rows] == [3, 4]
    assert run({}, first=5, steps=4)[0] == []


def test_the_evaluation_uses_the_new_weights(run: Any) -> None:
    calls, rows = run({}, every=2)
    assert calls[-3:] == ["wake kv_cache", "evaluate", "publish 2"]
    assert [row.get("evaluation/score") for row in rows] == [None, 1.0]


def test_a_stop_request_interrupts_a_rollout(run: Any) -> None:
    calls, rows = run({"generate 72": request_stop})
    assert calls == ["generate 71", *STEP, "generate 72", "stopped"]
    assert [row["step"] for row in rows] == [1]


@pytest.mark.parametrize("call", STEP)
def test_a_stop_request_after_the_rollout_lets_the_step_finish(run: Any, call: str) -> None:
    calls, rows = run({call: request_stop})
    assert calls == ["generate 71", *STEP, "stopped"]
    assert [row["step"] for row in rows] == [1]
