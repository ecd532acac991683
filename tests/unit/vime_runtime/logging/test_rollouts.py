from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vime_runtime.logging.rollouts import Rollouts
from vime_runtime.rollout.response import Response


def tell(watcher: Rollouts, step: int, text: str = "21") -> None:
    response = Response([5, 6, 2], [-0.5, -0.25, 0.0], "stop")
    watcher.rollout(step, 0, "reverse 12 =", "21", response, text, 1.0)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_response_is_on_disk_when_the_next_phase_begins(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    watcher = Rollouts(path)
    tell(watcher, 1, "é\n\x00")
    watcher.enter("train", 1, "")
    assert read(path) == [
        {
            "step": 1,
            "group": 0,
            "prompt": "reverse 12 =",
            "response": "é\n\x00",
            "label": "21",
            "reward": 1.0,
            "finish_reason": "stop",
            "response_tokens": 3,
            "logprob": -0.75,
        }
    ]


def test_steps_that_are_done_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    first = Rollouts(path)
    for step in (1, 2, 3):
        tell(first, step, "before")
    first.close()
    with path.open("a") as file:
        file.write('{"step": 3, "half')
    again = Rollouts(path)
    tell(again, 2, "after")
    again.close()
    assert [(row["step"], row["response"]) for row in read(path)] == [(1, "before"), (2, "after")]
