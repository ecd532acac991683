"""Show a run while it runs: a live view on a terminal, one line per step otherwise."""

from __future__ import annotations

import os
import termios
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from statistics import fmean
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from vime_runtime.spec import events, metrics

from vimectl.runs.run_log import RunLog, tokens_per_second
from vimectl.util.console import one_line, visible
from vimectl.util.units import duration, size

BARS = "▁▂▃▄▅▆▇█"
# The remaining time is estimated from the mean of this many latest steps.
PACE_WINDOW = 5
LABEL_WIDTH = 9
# Seconds of scoring after the generation that are worth a place in the live view.
REWARD_SHOWN_FROM = 0.05
# From this width on there is space for curves next to text.
WIDE = 120
STDIN = 0
LFLAG = 3  # termios.tcgetattr: [iflag, oflag, cflag, lflag, ...]


class PlainView:
    """Print one line for each step, for each phase outside the steps, and for each warning."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_rows: list[dict[str, Any]] = []
        self._printed_warnings = 0
        self._restarts = 0
        self._last_phase = ""

    def update(self, log: RunLog) -> None:
        """Print what is new."""
        for line in self.new_lines(log):
            self._console.print(visible(line), markup=False)

    def resume(self, log: RunLog) -> None:
        """Take what is in the log for printed already: a resumed run does not repeat it."""
        deque(self.new_lines(log), maxlen=0)

    def new_lines(self, log: RunLog) -> Iterator[str]:
        """Yield what is new."""
        if log.restarts > self._restarts:
            self._restarts = log.restarts
            yield f"restart {log.restarts}: {log.restart_reason}"
        for warning in log.warnings[self._printed_warnings :]:
            yield f"warning: {warning}"
        self._printed_warnings = len(log.warnings)
        known = min(len(self._printed_rows), len(log.rows))
        while known and self._printed_rows[known - 1] is not log.rows[known - 1]:
            known -= 1  # a restart repeats steps
        for row in log.rows[known:]:
            yield step_line(row, log)
        self._printed_rows[known:] = log.rows[known:]
        phase = f"{log.phase}: {log.detail}" if log.detail else log.phase
        outside_steps = (events.PREPARE, events.START_UP, events.SAVE, events.STOP)
        if log.phase in outside_steps and phase != self._last_phase:
            yield phase
        self._last_phase = phase


def step_line(row: dict[str, Any], log: RunLog) -> str:
    """Return a step as one line of plain text."""
    score = row.get(metrics.EVALUATION_SCORE)
    return "  ".join(
        (
            f"step {row[metrics.STEP]:.0f}/{log.steps}",
            f"reward {row[metrics.REWARD_MEAN]:.3f}",
            *([f"({failures})"] if (failures := reward_failures(row)) else []),
            *([f"evaluation {score:.3f}"] if score is not None else []),
            f"{tokens_per_second(row) or 0:.0f} tokens/s",
            f"sync {row[metrics.seconds(metrics.SYNC)]:.2f} s",
            f"trainer {size(row[metrics.TRAIN_ACTIVE_BYTES])}",
            f"engine {size(row[metrics.ROLLOUT_ACTIVE_BYTES])}",
            f"left {duration(seconds_left(log))}",
        )
    )


def reward_failures(row: dict[str, Any]) -> str:
    """Return how many responses of a step could not be scored; empty if all were."""
    counts = ((row.get(metrics.REWARD_TIMEOUTS), "timeout"), (row.get(metrics.REWARD_ERRORS), "error"))
    shown = [f"{count:.0f} {what}{'s' * (count > 1)}" for count, what in counts if count]
    return f"scoring: {', '.join(shown)}" if shown else ""


class LiveView:
    """A few lines that are redrawn in place. They fit 80 columns; wider terminals get longer curves."""

    def __init__(self, title: str) -> None:
        self._title = one_line(title)
        self._log: RunLog | None = None
        self._began = time.monotonic()

    def update(self, log: RunLog) -> None:
        """Show the state of this run log from now on."""
        self._log = log

    resume = update

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the view in the available width."""
        log = self._log
        if log is None:
            yield Text(f"{self._title}  starting")
            return
        yield self._headline(log)
        if log.steps:
            # The preparation counts its own steps.
            done = log.step if log.phase == events.PREPARE else len(log.rows)
            line = Table.grid(expand=True)  # a bar alone does not end its line
            line.add_row(ProgressBar(total=log.steps, completed=done))
            yield line
        if log.rows:
            yield _figures(log, options.max_width)
        if log.warnings:
            yield Text(f"warning: {one_line(log.warnings[-1])}", "yellow", no_wrap=True, overflow="ellipsis")

    def _headline(self, log: RunLog) -> Table:
        step = f"step {log.step}/{log.steps}  " if log.step else ""
        clock = f"{duration(time.monotonic() - self._began)} elapsed"
        if log.rows:
            clock += f", {duration(seconds_left(log))} left"
        text = Text.assemble((self._title, "bold"), f"  {step}", (one_line(log.phase), "cyan"))
        if log.restarts:
            text.append(f"  {log.restarts} restart{'s' * (log.restarts > 1)}", "yellow")
        text.append(f"  {one_line(log.detail)}")
        line = Table.grid(expand=True)
        line.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        line.add_column(justify="right", min_width=len(clock) + 1)
        line.add_row(text, Text(clock, style="dim"))
        return line


ProgressView = PlainView | LiveView


@contextmanager
def progress_view(console: Console, title: str) -> Iterator[ProgressView]:
    """Yield the view that suits the console; it is shown until the block ends."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    view = LiveView(title)
    with no_echo(), Live(view, console=console, refresh_per_second=2):
        yield view


def _figures(log: RunLog, width: int) -> Table:
    row = log.rows[-1]
    phases = (metrics.ROLLOUT, metrics.REWARD, metrics.TRAIN, metrics.SYNC)
    known = {phase: row.get(metrics.seconds(phase), 0.0) for phase in phases}
    if known[metrics.REWARD] < REWARD_SHOWN_FROM:
        del known[metrics.REWARD]  # the scoring is usually done when the generation ends
    seconds = ", ".join(f"{phase} {spent:.2f} s" for phase, spent in known.items())
    trainer = f"trainer {size(row[metrics.TRAIN_ACTIVE_BYTES])} ↔ {size(row[metrics.TRAIN_PAUSED_BYTES])}"
    engine = f"engine {size(row[metrics.ROLLOUT_ACTIVE_BYTES])} ↔ {size(row[metrics.ROLLOUT_PAUSED_BYTES])}"
    mean, largest = metrics.LOGPROB_ABS_DIFF_MEAN, metrics.LOGPROB_ABS_DIFF_MAX
    difference = f"differ by {row[mean]:.1e} on average, {row[largest]:.1e} at most"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, width=LABEL_WIDTH)
    grid.add_column(overflow="ellipsis", no_wrap=True, max_width=width - LABEL_WIDTH - 2)
    grid.add_row("reward", _with_curve(f"{row[metrics.REWARD_MEAN]:.3f}", log, metrics.REWARD_MEAN, width))
    if failures := reward_failures(row):
        grid.add_row("", Text(failures, "yellow"))
    if scores := {step: score for step, score in log.scores.items() if step}:
        latest, best = max(scores), max(sorted(scores), key=lambda step: scores[step])
        grid.add_row(
            "held-out",
            f"{scores[latest]:.3f} at step {latest}, best {scores[best]:.3f} at step {best}",
        )
        sets = log.set_scores.get(latest, {})
        if len(sets) > 1:
            shown = ", ".join(f"{one_line(name)} {score:.3f}" for name, score in sets.items())
            grid.add_row("", Text(shown))
    grid.add_row("speed", f"{tokens_per_second(row) or 0:.0f} tokens/s, {seconds}")
    grid.add_row("memory", f"{trainer}, {engine} (↔ offloaded)")
    grid.add_row("log-probs", _with_curve(difference, log, mean, width) if width >= WIDE else difference)
    return grid


def _with_curve(text: str, log: RunLog, key: str, width: int) -> str:
    """Return the text, and the curve of a metric in the rest of the line."""
    left = width - LABEL_WIDTH - 2 - len(text) - 2
    return f"{text}  {sparkline([row[key] for row in log.rows if key in row], left)}"


def seconds_left(log: RunLog) -> float:
    """Estimate the time of the remaining steps from the latest ones."""
    pace = fmean(row[metrics.seconds(metrics.WHOLE_STEP)] for row in log.rows[-PACE_WINDOW:])
    return pace * (log.steps - len(log.rows))


def sparkline(values: list[float], width: int = 40) -> str:
    """Return the latest ``width`` values as bars, scaled to their range; a blank for a value not finite."""
    shown = values[-width:] if width > 0 else []
    known = [value for value in shown if isfinite(value)]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)

    def bar(value: float) -> str:
        if not isfinite(value):
            return " "
        return BARS[round((value - low) / span * (len(BARS) - 1))] if span else BARS[0]

    return "".join(map(bar, shown))


@contextmanager
def no_echo() -> Iterator[None]:
    """Do not echo typed keys, such as ``^C``, into a view that is redrawn in place. Ctrl-C still works."""
    if not _is_foreground_terminal():
        yield
        return
    before = termios.tcgetattr(STDIN)
    quiet = list(before)
    quiet[LFLAG] &= ~termios.ECHO
    termios.tcsetattr(STDIN, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        if _is_foreground_terminal():
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def _is_foreground_terminal() -> bool:
    """Return True if this process may change the terminal; one in the background would be stopped for it."""
    try:
        return os.isatty(STDIN) and os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:  # not the controlling terminal of this session
        return False
