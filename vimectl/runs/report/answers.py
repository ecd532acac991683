"""Read the answers to evaluation problems that a run's page shows. The file may be large or incomplete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.regular_files import open_regular

from vimectl.runs.run_log import bounded_lines, finite_number, parse_object

# The page shows so many problems of a set at most, and so many sets.
SHOWN_PROBLEMS = 40
SHOWN_SETS = 8


@dataclass(frozen=True)
class AnsweredProblem:
    """A problem of an evaluation set and the first answer to it at each shown step, None without one."""

    prompt: Any
    label: Any
    answers: tuple[dict[str, Any] | None, ...]

    @property
    def outcome(self) -> str:
        """How the answers are filtered: "right" or "wrong" by the last reward, with "changed" if it moved."""
        rewards = [finite_number(answer.get("reward")) for answer in self.answers if answer]
        known = [reward for reward in rewards if reward is not None]
        if not known:
            return "wrong"
        return ("right" if known[-1] > 0 else "wrong") + (" changed" if known[0] != known[-1] else "")


@dataclass(frozen=True)
class SetAnswers:
    """Answers to the problems of one evaluation set: those shown, and the number of all problems."""

    name: str
    steps: tuple[int, ...]
    shown: tuple[AnsweredProblem, ...]
    problems: int


def shown_steps(scores: dict[int, float]) -> list[int]:
    """Return the first, the best and the last evaluated step. Step 0, before training, is never the best."""
    if not scores:
        return []
    best = max((step for step in sorted(scores) if step), key=lambda step: scores[step], default=0)
    return sorted({min(scores), best, max(scores)})


def read_answers(path: Path, scores: dict[int, float]) -> list[SetAnswers]:
    """Read the answers of the shown steps.

    Args:
        scores: the score of each evaluated step; answers of other steps are left from an earlier attempt.
    """
    steps = shown_steps(scores)
    # By set and problem: the first answer at each step.
    found: dict[str, dict[int, dict[int, dict[str, Any]]]] = {}
    for answer in _answers_of(path, steps):
        match answer:
            case {"step": int(step), "set": str(name), "problem": int(problem)}:
                found.setdefault(name, {}).setdefault(problem, {}).setdefault(step, answer)
    return [_set_answers(name, found[name], steps) for name in list(found)[:SHOWN_SETS]]


def _set_answers(name: str, problems: dict[int, dict[int, dict[str, Any]]], steps: list[int]) -> SetAnswers:
    shown = []
    for number in sorted(problems)[:SHOWN_PROBLEMS]:
        answers = problems[number]
        latest = answers[max(answers)]
        by_step = tuple(answers.get(step) for step in steps)
        shown.append(AnsweredProblem(latest.get("prompt", ""), latest.get("label", ""), by_step))
    return SetAnswers(name, tuple(steps), tuple(shown), len(problems))


def _answers_of(path: Path, steps: Iterable[int]) -> Iterable[dict[str, Any]]:
    """Yield the lines of these steps. Lines of other steps are recognized by their begin and not parsed."""
    begins = tuple(f'{{"step": {step},'.encode() for step in steps)
    if not begins:
        return
    with contextlib.suppress(OSError), open_regular(path) as file:
        for line in bounded_lines(file):
            if (
                line.startswith(begins)
                and line.endswith(b"\n")
                and (answer := parse_object(line)) is not None
            ):
                yield answer
