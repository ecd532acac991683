"""What a person sees while a run goes on: a live view on a terminal, one line a step when piped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from statistics import fmean
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vimectl.runs import terminal
from vimectl.runs.run_log import Journal
from vimectl.util.units import duration, size

BARS = "▁▂▃▄▅▆▇█"
# The time left is guessed from the mean of this many latest steps.
WINDOW = 5
LABEL_WIDTH = 9
# From this many columns on there is room for curves beside words.
WIDE = 120


class Progress(Protocol):
    """Shows how far a run is."""

    def update(self, journal: Journal) -> None:
        """Take in what the journal has gained."""


@contextmanager
def showing(console: Console, title: str) -> Iterator[Progress]:
    """The view that suits the console, shown until the block ends."""
    if not console.is_terminal:
        yield PlainProgress(console)
        return
    view = LiveProgress(title)
    with terminal.unseen(), Live(view, console=console, refresh_per_second=2):
        yield view


class PlainProgress:
    """One line for each phase outside the steps, and one for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0
        self._restarts = 0
        self._last = ""

    def update(self, journal: Journal) -> None:
        """Print the lines that are new."""
        if journal.restarts > self._restarts:
            self._restarts = journal.restarts
            self._print(f"restart {journal.restarts}: {journal.restart_reason}")
        self._shown = min(self._shown, len(journal.rows))  # a restart takes steps back
        for row in journal.rows[self._shown :]:
            self._print(step_line(row, journal))
        self._shown = len(journal.rows)
        words = f"{journal.phase}: {journal.detail}" if journal.detail else journal.phase
        if journal.phase in ("prepare", "start-up", "save", "stop") and words != self._last:
            self._print(words)
        self._last = words

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False)


def step_line(row: dict[str, float], journal: Journal) -> str:
    """A step in one line of plain text."""
    score = row.get("evaluation/score")
    return "  ".join(
        (
            f"step {row['step']:.0f}/{journal.steps}",
            f"reward {row['reward/mean']:.3f}",
            *([f"evaluation {score:.3f}"] if score is not None else []),
            f"{tokens_per_second(row):.0f} tokens/s",
            f"sync {row['sync/seconds']:.2f} s",
            f"trainer {size(row['memory/train_active_bytes'])}",
            f"engine {size(row['memory/rollout_active_bytes'])}",
            f"left {duration(seconds_left(journal))}",
        )
    )


class LiveProgress:
    """A few lines that are redrawn in place. They fit 80 columns; with more there are longer curves."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._journal: Journal | None = None
        self._began = time.monotonic()

    def update(self, journal: Journal) -> None:
        """Redraw from this journal from now on."""
        self._journal = journal

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The view as it is now, in the width there is."""
        journal = self._journal
        if journal is None:
            yield Text(f"{self._title}  starting")
            return
        yield self._head(journal)
        if journal.steps:
            yield _bar(journal)
        if journal.rows:
            yield _figures(journal, options.max_width)

    def _head(self, journal: Journal) -> Table:
        step = f"step {journal.step}/{journal.steps}  " if journal.step else ""
        clock = f"{duration(time.monotonic() - self._began)} gone"
        if journal.rows:
            clock += f", {duration(seconds_left(journal))} left"
        head = Table.grid(expand=True)
        head.add_column(overflow="ellipsis", no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        words = Text.assemble((self._title, "bold"), f"  {step}", (journal.phase, "cyan"))
        if journal.restarts:
            words.append(f"  {journal.restarts} restart{'s' * (journal.restarts > 1)}", "yellow")
        words.append(f"  {journal.detail}")
        head.add_row(words, Text(clock, style="dim"))
        return head


def _bar(journal: Journal) -> Table:
    # The preparation counts its own steps.
    done = journal.step if journal.phase == "prepare" else len(journal.rows)
    line = Table.grid(expand=True)  # a bar by itself does not end its line
    line.add_row(ProgressBar(total=journal.steps, completed=done))
    return line


def _figures(journal: Journal, width: int) -> Table:
    row = journal.rows[-1]
    seconds = ", ".join(f"{name} {row[f'{name}/seconds']:.2f} s" for name in ("rollout", "train", "sync"))
    memory = ", ".join(
        f"{name} {size(row[f'memory/{side}_active_bytes'])} ↔ {size(row[f'memory/{side}_paused_bytes'])}"
        for name, side in (("trainer", "train"), ("engine", "rollout"))
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, width=LABEL_WIDTH)
    grid.add_column(overflow="ellipsis", no_wrap=True)
    grid.add_row("reward", _with_curve(f"{row['reward/mean']:.3f}", journal, "reward/mean", width))
    if scores := [r for r in journal.rows if "evaluation/score" in r]:
        grid.add_row("held-out", _evaluation(scores))
    grid.add_row("speed", f"{tokens_per_second(row):.0f} tokens/s, {seconds}")
    grid.add_row("memory", f"{memory} (awake ↔ paused)")
    differ = (
        f"differ by {row['logprob/abs_diff_mean']:.1e} on average, {row['logprob/abs_diff_max']:.1e} at most"
    )
    wide = width >= WIDE
    grid.add_row(
        "log-probs", _with_curve(differ, journal, "logprob/abs_diff_mean", width) if wide else differ
    )
    return grid


def _with_curve(words: str, journal: Journal, key: str, width: int) -> str:
    """The words, and in what is left of the line the way to the latest value."""
    left = width - LABEL_WIDTH - 2 - len(words) - 2
    return f"{words}  {sparkline([row[key] for row in journal.rows if key in row], left)}"


def _evaluation(scored: list[dict[str, float]]) -> str:
    latest, best = scored[-1], max(scored, key=lambda row: row["evaluation/score"])
    return (
        f"{latest['evaluation/score']:.3f} at step {latest['step']:.0f}, "
        f"best {best['evaluation/score']:.3f} at step {best['step']:.0f}"
    )


def tokens_per_second(row: dict[str, float]) -> float:
    """Response tokens sampled in a second of the rollout phase."""
    return row["rollout/tokens"] / row["rollout/seconds"]


def seconds_left(journal: Journal) -> float:
    """The remaining steps at the pace of the latest ones."""
    pace = fmean(row["step/seconds"] for row in journal.rows[-WINDOW:])
    return pace * (journal.steps - len(journal.rows))


def sparkline(values: list[float], width: int = 40) -> str:
    """The latest ``width`` values as bars between their smallest and their largest; no number, no bar."""
    shown = values[-width:] if width > 0 else []
    known = [value for value in shown if isfinite(value)]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)

    def bar(value: float) -> str:
        if not isfinite(value):
            return " "
        return BARS[round((value - low) / span * (len(BARS) - 1))] if span else BARS[0]

    return "".join(map(bar, shown))
