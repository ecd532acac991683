from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import answer
from vimectl.runs.report.answers import SetAnswers, read_answers, shown_steps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evaluations.jsonl"


def read(path: Path, lines: list[Any], scores: dict[int, float]) -> list[SetAnswers]:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return read_answers(path, scores)


@pytest.mark.parametrize(
    ("scores", "steps"),
    [
        ({}, []),
        ({0: 0.5}, [0]),
        ({0: 0.9, 5: 0.1, 10: 0.3, 15: 0.3, 20: 0.2}, [0, 10, 20]),
        ({0: 0.1, 5: 0.2}, [0, 5]),
    ],
)
def test_first_best_and_last_evaluation_are_shown(scores: dict[int, float], steps: list[int]) -> None:
    assert shown_steps(scores) == steps


def test_answers_to_one_problem_are_next_to_each_other(path: Path) -> None:
    lines = [
        answer(0, 0, reward=0.0, response="first"),
        answer(0, 0, reward=1.0, response="second sample"),
        answer(0, 1),
        answer(0, 0, "hard"),
        answer(7, 0, response="another step"),
        answer(10, 0, response="last"),
    ]
    held_out, hard = read(path, lines, {0: 0.5, 10: 1.0})
    assert (held_out.name, held_out.steps, held_out.problems, hard.name) == ("held-out", (0, 10), 2, "hard")
    shown = [[a and a["response"] for a in problem.answers] for problem in held_out.shown]
    assert shown == [["first", "last"], ["121", None]]
    assert [problem.outcome for problem in held_out.shown] == ["right changed", "right"]


def test_some_of_many_problems_are_shown(path: Path) -> None:
    (found,) = read(path, [answer(3, problem) for problem in range(100)], {3: 1.0})
    assert (len(found.shown), found.problems) == (40, 100)


def test_damaged_lines_are_skipped(path: Path) -> None:
    lines = ['{"step": 1, "set"', "\n", '{"step": 1, "set": 5}\n', "[]\n", answer(1), '{"step": 1, "half']
    (found,) = read(path, lines, {1: 1.0})
    assert found.problems == 1
    assert read_answers(path.with_name("missing"), {1: 1.0}) == []
    odd = answer(1, reward="high")
    (found,) = read(path, [odd], {1: 1.0})
    assert found.shown[0].outcome == "wrong"
