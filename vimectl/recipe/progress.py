"""What a person sees while a run goes on: a live view on a terminal, one line a step when piped."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console

from vimectl.recipe.journal import Journal


class Progress(Protocol):
    """Shows how far a run is."""

    def update(self, journal: Journal) -> None:
        """Show what the journal has gained."""


class PlainProgress:
    """One line for each phase of the start-up and one for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0
        self._last = ""

    def update(self, journal: Journal) -> None:
        """Print the lines that are new."""
        words = f"{journal.phase}: {journal.detail}" if journal.detail else journal.phase
        if journal.phase in ("prepare", "start-up", "save") and words != self._last:
            self._console.print(words)
        self._last = words
        for row in journal.rows[self._shown :]:
            self._console.print(step_line(row, journal.steps))
        self._shown = len(journal.rows)


def step_line(row: dict[str, float], steps: int) -> str:
    """A step in one line of plain text."""
    return (
        f"step {row['step']:.0f}/{steps}  reward {row['reward/mean']:.3f}  "
        f"{row['rollout/tokens'] / row['rollout/seconds']:.0f} tokens/s  sync {row['sync/seconds']:.2f} s  "
        f"step {row['step/seconds']:.1f} s  logprob diff {row['logprob/abs_diff_mean']:.1e}"
    )
