"""The problems of a run: read from its directory, in an order that depends only on seed and step.

``python -m vime_runtime.data`` has written the files before the run; nothing here imports torch.
"""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from vime_runtime.spec.run_paths import COUNTS_FILE


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        prompt_ids: the tokens that the engine gets.
        prompt: the text of these tokens.
        index: position in the data file, without blank lines, or in the task; from 0.
        row: the object in the data file; None for a task.
    """

    prompt_ids: list[int]
    prompt: str
    label: str
    index: int = 0
    row: dict[str, Any] | None = None


@dataclass
class Counts:
    """The numbers of problems of one set, and the lengths of skipped prompts in tokens."""

    problems: int = 0
    skipped: int = 0
    shortest_skipped: int = 0
    longest_skipped: int = 0

    def skip(self, tokens: int) -> None:
        """Count a prompt that is too long."""
        self.skipped += 1
        self.shortest_skipped = min(self.shortest_skipped or tokens, tokens)
        self.longest_skipped = max(self.longest_skipped, tokens)

    def warning(self, path: str, max_prompt_tokens: int) -> str:
        """Return a sentence about skipped prompts; empty without any."""
        if not self.skipped:
            return ""
        return (
            f"{path}: skipped {self.skipped} of {self.skipped + self.problems} prompts, which have more than "
            f"rollout.max_prompt_tokens = {max_prompt_tokens} tokens, up to {self.longest_skipped}"
        )


def read_counts(folder: Path) -> dict[str, Counts]:
    """Return the counts of each set of a folder of problems."""
    counts = json.loads((folder / COUNTS_FILE).read_text(encoding="utf-8"))
    return {name: Counts(**found) for name, found in counts.items()}


def problem_file(folder: Path, name: str) -> Path:
    """Return the file of a set in a folder of problems."""
    return folder / f"{name}.jsonl"


class ProblemFile(Sequence[Problem]):
    """The problems of a file with one JSON object a line. A line is read whenever its problem is used."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._offsets = array("Q")
        offset = 0
        for line in self._file:
            self._offsets.append(offset)
            offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._offsets[index])
        return Problem(**json.loads(self._file.readline()))


class ProblemStream:
    """The problems of a run, shuffled again for every epoch."""

    def __init__(self, problems: Sequence[Problem], per_step: int, seed: int) -> None:
        self._problems = problems
        self._per_step = per_step
        # A step has problems of one or two epochs, unless it has more than all of them.
        self._order = lru_cache(maxsize=2)(lambda epoch: _order(len(problems), seed, epoch))

    def batch(self, step: int) -> list[Problem]:
        """Return the problems of ``step``, counted from 1. They depend on nothing else but the seed."""
        size = len(self._problems)
        first = (step - 1) * self._per_step
        positions = range(first, first + self._per_step)
        return [self._problems[self._order(position // size)[position % size]] for position in positions]


def _order(count: int, seed: int, epoch: int) -> Sequence[int]:
    # A seed that is text gives the same order in every process, unlike the hash of a tuple.
    order = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(order)  # nosec B311 # an order, repeatable
    return array("Q", order)
