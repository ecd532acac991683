from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import Response
from vime_runtime.logging.callbacks import EvaluationWriter, RolloutWriter, configured_callbacks
from vime_runtime.logging.event_log import ScoredResponse
from vime_runtime.spec.errors import UsageError

from harness.run_config import make_run_config


def names(run_dir: Path, **watch: Any) -> list[str]:
    config = make_run_config({"recipe": {"watch": watch}, "run_dir": str(run_dir)})
    return [type(callback).__name__ for callback in configured_callbacks(config, print)]


def test_the_recipe_turns_callbacks_on(tmp_path: Path) -> None:
    assert names(tmp_path) == ["EvaluationWriter"]
    assert names(tmp_path, rollouts=True) == ["EvaluationWriter", "RolloutWriter"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow", "swanlab", "trackio"])
def test_a_missing_tracker_is_bad_input_with_the_command_that_installs_it(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"vime_runtime.logging.trackers.{tracker}"
    for name in [name for name in sys.modules if name.split(".")[0] == tracker or name == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(UsageError, match=f"watch.trackers has {tracker}, which cannot be") as caught:
        names(tmp_path, trackers=[tracker])
    assert f'-m pip install "vimectl[{tracker}]"' in caught.value.hint


def respond(writer: RolloutWriter, step: int, text: str = "21") -> None:
    response = Response([5, 6, 2], [-0.5, -0.25, 0.0], "stop")
    writer.on_response(ScoredResponse(step, 0, "reverse 12 =", "21", response, text, 1.0))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_responses_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    writer = RolloutWriter(path)
    respond(writer, 1, "é\n\x00")
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


def test_a_resumed_run_replaces_the_responses_of_its_steps(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    first = RolloutWriter(path)
    for step in (1, 2, 3):
        respond(first, step, "before")
    first.close()
    with path.open("a") as file:
        file.write('{"step": 3, "half')
    resumed = RolloutWriter(path)
    respond(resumed, 2, "after")
    resumed.close()
    assert [(row["step"], row["response"]) for row in read(path)] == [(1, "before"), (2, "after")]


def test_answers_of_an_evaluation_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    for step, text in ((0, "first"), (5, "stale"), (5, "again")):
        writer = EvaluationWriter(path)
        for name in ("held-out", "hard"):
            response = Response([5, 2], [-0.5, 0.0], "length")
            writer.on_answer(name, ScoredResponse(step, 3, "12 =", "21", response, text, 0.5))
        writer.close()
    rows = read(path)
    assert [(row["step"], row["set"], row["response"]) for row in rows] == [
        (0, "held-out", "first"),
        (0, "hard", "first"),
        (5, "held-out", "again"),
        (5, "hard", "again"),
    ]
    assert rows[0] == {
        "step": 0,
        "set": "held-out",
        "problem": 3,
        "prompt": "12 =",
        "response": "first",
        "label": "21",
        "reward": 0.5,
        "finish_reason": "length",
        "response_tokens": 2,
    }
