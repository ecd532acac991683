"""Run a module of the runtime before a run: it reports progress and errors as events on stdout."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError
from vime_runtime.spec.run_paths import RunPaths

from vimectl.runs.progress import ProgressView
from vimectl.runs.run_log import RunLog
from vimectl.runs.supervised_command import collect_stop_signals, run_supervised


def run_module(
    arguments: list[str], folder: Path, environment: Mapping[str, str], view: ProgressView, doing: str
) -> int:
    """Run ``python -m MODULE ARGUMENTS`` and show its events. Return its peak memory in bytes.

    Args:
        folder: for its events, errors and temporary files.
        doing: what it does, for messages.

    Raises:
        UsageError, MissingRequirement: the error that it reports.
        CheckFailed: it failed otherwise; the message ends with its last line of output.
        KeyboardInterrupt: the user interrupted it.
    """
    log, errors = RunLog(folder), folder / "stderr.log"

    def update_view() -> None:
        if log.read():
            view.update(log)

    # The run's own temporary folder does not exist yet.
    temporary = folder / "tmp"
    temporary.mkdir()
    with collect_stop_signals() as stop_signals:
        outcome = run_supervised(
            [sys.executable, "-m", *arguments],
            {**environment, "TMPDIR": str(temporary)},
            stdout=RunPaths(folder).events,
            stderr=errors,
            check=update_view,
            stop_signals=stop_signals,
        )
    update_view()
    shutil.rmtree(temporary, ignore_errors=True)
    if outcome.signal is not None:
        raise KeyboardInterrupt
    if outcome.code == 0:
        return outcome.peak_bytes
    if log.error:
        kind = MissingRequirement if outcome.code == MissingRequirement.exit_code else UsageError
        raise kind(log.error["message"], log.error["hint"])
    last = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise CheckFailed(f"{doing} ended with exit code {outcome.code}: {''.join(last)}")
