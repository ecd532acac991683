"""The loop with stand-ins for both sides: what a step consists of, and what a request to stop leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.data.problems import Problem, ProblemStream
from vime_runtime.evaluation import Evaluation
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.rollout.response import Response
from vime_runtime.train_loop import train_loop

from harness.run_config import make_run_config

PROBLEMS = [Problem([i], f"{i}?", str(i)) for i in range(6)]


class Sides:
    """Trainer, engine and keeper as one: they write down what is asked of them, and may be interrupted."""

    def __init__(self, at: dict[str, Callable[[], None]]) -> None:
        self.calls: list[str] = []
        self._at = at

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._at.get(call, lambda: None)()

    def generate(
        self, prompts: list[list[int]], samples: int, seed: int, greedy: bool = False
    ) -> list[list[Response]]:
        self._note("evaluate" if greedy else f"generate {seed}")
        return [[Response([*prompt, 1], [-0.5, -0.5], "stop")] * samples for prompt in prompts]

    def step(self, batch: Any) -> dict[str, float]:
        self._note("train")
        return {"train/loss": 0.5}

    def write(self, step: int, row: dict[str, float]) -> None:
        self._note(f"write {step}")

    def publish(self, step: int, row: dict[str, float]) -> None:
        self._note(f"publish {step}")

    def memory_usage(self) -> MemoryUsage:
        return MemoryUsage(20, 10, reclaimable=3)

    def resume(self) -> None:
        self._note("resume")

    def pause(self) -> None:
        self._note("pause")

    def sleep(self) -> None:
        self._note("sleep")

    def wake(self, tag: str) -> None:
        self._note(f"wake {tag}")

    def sync(self, trainer: Any, engine: Any) -> int:
        self._note("sync")
        return 8


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[list[str], list[dict[str, float]]]]]:
    """Run the loop; ``at`` is what happens at a call. Returns the calls and the rows of metrics."""
    before = signal.getsignal(signal.SIGTERM)

    def start(
        at: dict[str, Callable[[], None]], first: int = 1, steps: int = 2, every: int = 0
    ) -> tuple[list[str], list[dict[str, float]]]:
        stop = StopRequest()
        stop.listen()
        sides = Sides(at)
        journal = EventLog(tmp_path, steps)
        config = make_run_config(
            {"recipe": {"algorithm": {"samples_per_prompt": 2, "seed": 70}}, "steps": steps}
        )
        decode, reward = lambda ids: str(ids[0]), lambda text, problem: float(text == problem.label)
        evaluation = Evaluation(PROBLEMS[:2], every, decode, reward)
        stream = ProblemStream(PROBLEMS[2:], 2, seed=0)
        try:
            train_loop(
                config, sides, sides, stream, decode, reward, evaluation, sides, journal, stop,
                lambda: 100, sides.sync, first=first,
            )  # fmt: skip
        except KeyboardInterrupt:
            sides.calls.append("stopped")
        journal.close()
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return sides.calls, rows

    yield start
    signal.signal(signal.SIGTERM, before)


STEP = ["sleep", "resume", "train", "write 1", "wake weights", "sync", "pause", "wake kv_cache", "publish 1"]


def test_a_step_takes_turns_and_ends_with_its_row(run: Any) -> None:
    calls, rows = run({}, steps=1)
    assert calls == ["generate 71", *STEP]
    assert rows[0]["train/loss"] == 0.5
    assert "evaluation/score" not in rows[0]


def test_memory_that_was_given_back_is_no_part_of_the_peak(run: Any) -> None:
    _, rows = run({}, steps=1)
    assert rows[0]["memory/peak_bytes"] == 100 - 2 * 3
    assert rows[0]["memory/train_paused_bytes"] == rows[0]["memory/rollout_active_bytes"] == 10


def test_a_run_goes_on_with_the_seeds_of_the_steps_to_come(run: Any) -> None:
    calls, rows = run({}, first=3, steps=4)
    assert [call for call in calls if call.startswith("generate")] == ["generate 73", "generate 74"]
    assert [row["step"] for row in rows] == [3, 4]
    assert run({}, first=5, steps=4)[0] == []


def test_a_due_step_is_scored_with_its_new_weights(run: Any) -> None:
    calls, rows = run({}, every=2)
    assert calls[-3:] == ["wake kv_cache", "evaluate", "publish 2"]
    assert [row.get("evaluation/score") for row in rows] == [None, 1.0]


def test_a_rollout_is_broken_off(run: Any) -> None:
    calls, rows = run({"generate 72": ask_to_stop})
    assert calls == ["generate 71", *STEP, "generate 72", "stopped"]
    assert [row["step"] for row in rows] == [1]


@pytest.mark.parametrize("call", STEP)
def test_a_step_past_its_rollout_is_finished(run: Any, call: str) -> None:
    calls, rows = run({call: ask_to_stop})
    assert calls == ["generate 71", *STEP, "stopped"]
    assert [row["step"] for row in rows] == [1]
