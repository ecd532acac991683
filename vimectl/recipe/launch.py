"""Execute a plan: prepare what is missing, start the runtime, follow it, write down how it ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vimectl import __version__
from vimectl.recipe import inputs, logs, prepared, report
from vimectl.recipe import plan as planning
from vimectl.recipe.journal import Journal
from vimectl.recipe.plan import Plan
from vimectl.recipe.progress import Progress
from vimectl.recipe.schema import Recipe
from vimectl.recipe.summary import summarise
from vimectl.recipe.supervise import Outcome, supervise

INTERRUPTED = 130


@dataclass(frozen=True)
class Ended:
    """What a run came to: ``hint`` is the mend or the end of the log, ``last`` the last step's metrics."""

    exit_code: int
    summary: dict[str, Any]
    last: dict[str, float] | None
    hint: str


def check_inputs(recipe: Recipe) -> None:
    """Check model and data before a launch. What is yet to be prepared is checked by the launch.

    Raises BadInput as ``inputs.check`` does.
    """
    prepare = prepared.needed(recipe)
    folder = prepared.folder(prepare) if prepare else None
    inputs.check(recipe, besides=None if folder and folder.is_dir() else folder)


def launch(plan: Plan, doctor: dict[str, Any], progress: Progress) -> Ended:
    """Carry out a plan whose inputs were checked. What stays is the run directory and what was prepared.

    Args:
        doctor: what the machine was found to be, kept in the run directory.

    Raises:
        BadInput: the preparation's settings are wrong; there is no run directory.
        CheckFailed: the preparation failed; there is no run directory.
        KeyboardInterrupt: interrupted before the runtime was started.
    """
    recipe = plan.resolved.recipe
    # Between the two supervised commands a request to stop unwinds like Ctrl-C, so that nothing is left.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    with _scratch(plan.scratch_dir):
        environment = os.environ | plan.environment["driver"]
        peak_bytes = 0
        if prepare := prepared.needed(recipe):
            peak_bytes = prepared.make(prepare, environment, progress)
            inputs.check(recipe)
        planning.write(plan, doctor)
        return _run(plan, environment, progress, peak_bytes)


def _run(plan: Plan, environment: dict[str, str], progress: Progress, peak_bytes: int) -> Ended:
    """Run the runtime until it ends or is interrupted; ``launcher.json`` before, ``summary.json`` after.

    ``peak_bytes`` is what came before it took.
    """
    _write(plan.run_dir / "launcher.json", _launcher())
    log = plan.run_dir / "logs" / "driver.log"
    journal = Journal(plan.run_dir)

    def look() -> None:
        if journal.read():
            progress.update(journal)

    outcome = supervise(plan.command, environment, stdout=log, stderr=log, look=look)
    exit_code, reason, hint = verdict(outcome, journal)
    summary = summarise(plan, journal, outcome, exit_code, reason, peak_bytes)
    _write(plan.run_dir / "summary.json", summary)
    report.write_at_end(plan.run_dir)
    failed = exit_code not in (0, INTERRUPTED)
    if failed:
        logs.keep_ray(plan.scratch_dir, plan.run_dir)
    last = journal.rows[-1] if journal.rows else None
    return Ended(exit_code, summary, last, hint or (logs.ending(plan.run_dir, reason) if failed else ""))


def verdict(outcome: Outcome, journal: Journal) -> tuple[int, str, str]:
    """The exit code for the shell, the reason in words, and the mend if the runtime gave one."""
    if outcome.signal is not None:
        return INTERRUPTED, "interrupted", ""
    if outcome.code == 0:
        return 0, "finished", ""
    if journal.error:
        code = outcome.code if outcome.code in (1, 2, 3) else 1
        return code, str(journal.error.get("message", "")), str(journal.error.get("hint", ""))
    if outcome.code is not None and outcome.code < 0:
        return 1, f"the runtime was killed by signal {-outcome.code}", ""
    return 1, f"the runtime ended with exit code {outcome.code} and no word why", ""


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _launcher() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "started": time.time(),
        "argv": sys.argv,
        "version": __version__,
        "host": os.uname().nodename,
    }


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
