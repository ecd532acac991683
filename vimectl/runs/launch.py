"""Execute a plan: prepare what is missing, start the run's supervisor, show what it does, tell how it ended.

The supervisor is a process of its own and owns the run. Each of the two notices the other's death: the
supervisor ends the run when the launcher is gone, the launcher ends it when the supervisor is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from vime_runtime.spec.errors import INTERRUPTED
from vime_runtime.spec.recipe import Recipe

from vimectl import __version__
from vimectl.recipes import check_inputs, prepare_cache
from vimectl.runs import descendants, logs, npu_path, report
from vimectl.runs import plan as planning
from vimectl.runs import summary as summaries
from vimectl.runs.exit_status import Verdict
from vimectl.runs.pidfd import signal_name
from vimectl.runs.plan import Plan
from vimectl.runs.process_identity import Identity, is_stopped
from vimectl.runs.progress import Progress
from vimectl.runs.run_log import Journal
from vimectl.runs.shared_memory import SharedMemoryWatch
from vimectl.runs.supervised_command import KILL_SECONDS, LOOK_SECONDS, stop_requests

# What the supervisor may take beyond `cluster.stop_seconds` when it is told to stop.
STOP_MARGIN_SECONDS = 2 * KILL_SECONDS


@dataclass(frozen=True)
class Ended:
    """What a run came to: ``hint`` is the mend or the end of the log, ``last`` the last step's metrics."""

    exit_code: int
    summary: dict[str, Any]
    last: dict[str, float] | None
    hint: str


def check_run_inputs(recipe: Recipe) -> None:
    """Check model and data before a launch. What is yet to be prepared is checked by the launch.

    Raises UsageError as ``inputs.check`` does.
    """
    prepare = prepare_cache.needed(recipe)
    folder = prepare_cache.folder(prepare) if prepare else None
    check_inputs.check(recipe, besides=None if folder and folder.is_dir() else folder)


def launch(plan: Plan, doctor: dict[str, Any], progress: Progress) -> Ended:
    """Carry out a plan whose inputs were checked. What stays is the run directory and what was prepared.

    Args:
        doctor: what the machine was found to be, kept in the run directory.

    Raises:
        UsageError: the preparation's settings are wrong; there is no run directory.
        CheckFailed: the preparation failed; there is no run directory.
        KeyboardInterrupt: interrupted before the run was started.
    """
    recipe = plan.resolved.recipe
    # Before the supervisor is there a request to stop unwinds like Ctrl-C, so that nothing is left.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    peak_bytes = 0
    if prepare := prepare_cache.needed(recipe):
        peak_bytes = prepare_cache.make(prepare, os.environ | plan.environment["driver"], progress)
        check_inputs.check(recipe)
    planning.write(plan, doctor)
    launcher = {
        **asdict(Identity.of(os.getpid())),
        "time": time.time(),
        "argv": sys.argv,
        "version": __version__,
        "prepare_peak_bytes": peak_bytes,
    }
    (plan.run_dir / "launcher.json").write_text(json.dumps(launcher, indent=2) + "\n", encoding="utf-8")
    if notice := npu_path.notice(recipe):
        with (plan.run_dir / "logs" / "driver.log").open("a", encoding="utf-8") as log:
            log.write(notice + "\n")
    ended = _follow(plan, progress)
    if ended.exit_code == 0:
        npu_path.note_completed(recipe, ended.summary)
    return ended


def _follow(plan: Plan, progress: Progress) -> Ended:
    """Start the supervisor, show what the run writes and pass signals on until the supervisor has ended."""
    descendants.adopt_orphans()
    shm = SharedMemoryWatch()
    journal = Journal(plan.run_dir)
    began = time.monotonic()
    log = plan.run_dir / "logs" / "supervisor.log"
    with stop_requests() as requests, log.open("ab") as errors:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "vimectl.runs.supervisor", str(plan.run_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        shepherd = _Shepherd(supervisor, requests, plan.resolved.recipe)
        while supervisor.poll() is None:
            if journal.read():
                progress.update(journal)
            shepherd.look()
            time.sleep(LOOK_SECONDS)
        if journal.read():
            progress.update(journal)
        last = journal.rows[-1] if journal.rows else None
        with contextlib.suppress(ValueError):
            summary = json.loads(supervisor.communicate()[0])
            return Ended(summary["exit_code"], summary, last, summary["hint"])
        # The run outlives its supervisor: what descends from it is ours now.
        shm.look(again=True)
        unkillable = descendants.end_all(besides=supervisor.pid, seconds=KILL_SECONDS)
        shm.remove()
        verdict = shepherd.verdict()
        hint = ""
        if verdict.exit_code != INTERRUPTED:
            logs.keep_ray(plan.scratch_dir, plan.run_dir)
            hint = logs.ending(plan.run_dir, verdict.reason)
        shutil.rmtree(plan.scratch_dir, ignore_errors=True)
        seconds = time.monotonic() - began
        summary = summaries.summarise(plan.document(), journal, verdict, seconds, 0, unkillable, hint)
        if not summaries.write(plan.run_dir, summary):
            hint += "; summary.json could not be written"
        report.write_at_end(plan.run_dir)
        return Ended(verdict.exit_code, summary, last, hint)


class _Shepherd:
    """Passes signals on to the supervisor, and ends it when it is stopped or does not stop."""

    def __init__(self, supervisor: subprocess.Popen[bytes], requests: list[int], recipe: Recipe) -> None:
        self._supervisor = supervisor
        self._requests = requests
        self._cluster = recipe.cluster
        self._passed = 0
        self._asked_at: float | None = None
        self._stopped_at: float | None = None
        self._what = ""

    def look(self) -> None:
        """Do what has to be done at this moment."""
        now = time.monotonic()
        for signum in self._requests[self._passed :]:
            self._supervisor.send_signal(signum)
            self._asked_at = self._asked_at or now
        self._passed = len(self._requests)
        if not is_stopped(self._supervisor.pid):
            self._stopped_at = None
        elif self._stopped_at is None:
            self._stopped_at = now
        if self._stopped_at is not None:
            # Nobody watches the run meanwhile, which may be well: as patient as with a run that hangs.
            if self._asked_at or now > self._stopped_at + self._cluster.hang_seconds:
                self._kill(f"was stopped for {now - self._stopped_at:.0f} s")
        elif self._asked_at and now > self._asked_at + self._cluster.stop_seconds + STOP_MARGIN_SECONDS:
            self._kill("did not end the run when it was told to")

    def verdict(self) -> Verdict:
        """What it means that the supervisor ended without a word."""
        if self._requests:
            return Verdict(INTERRUPTED, "interrupted")
        code = self._supervisor.returncode
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        process = {"role": "supervisor", "rank": 0, "pid": self._supervisor.pid}
        return Verdict(1, f"supervisor (pid {self._supervisor.pid}) {self._what or how}", process=process)

    def _kill(self, what: str) -> None:
        self._what = what
        self._supervisor.kill()
