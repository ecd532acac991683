"""Execute a plan: prepare model and data, start the supervisor, show the progress, return the result.

The supervisor is a separate process and owns the run. It ends the run when the launcher has exited. The
launcher ends the run when the supervisor has exited without doing so.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from vime_runtime.spec.errors import INTERRUPTED
from vime_runtime.spec.process_roles import SUPERVISOR
from vime_runtime.spec.recipe import ClusterTable, Recipe
from vime_runtime.spec.run_paths import RunPaths

from vimectl import __version__
from vimectl.recipes import check_inputs
from vimectl.recipes.resolve import prepared_dir, required_preparation
from vimectl.runs import descendants, log_files, npu_notice
from vimectl.runs import summary as summaries
from vimectl.runs.descendants import SharedMemoryWatch
from vimectl.runs.exit_status import ExitStatus, blame
from vimectl.runs.plan import RunPlan, write_run_directory
from vimectl.runs.prepare import prepare
from vimectl.runs.process_watch import ProcessIdentity, exit_text, process_state
from vimectl.runs.progress import ProgressView
from vimectl.runs.run_log import RunLog
from vimectl.runs.supervised_command import (
    CHECK_INTERVAL,
    KILL_TIMEOUT,
    SHUTDOWN_MARGIN,
    collect_stop_signals,
)


@dataclass(frozen=True)
class RunResult:
    """The summary of a run that has ended, and the metrics of its last step."""

    summary: dict[str, Any]
    last_row: dict[str, Any] | None

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return int(self.summary["exit_code"])


def check_run_inputs(recipe: Recipe) -> None:
    """Check model and data before a launch. ``launch`` checks files that it has to prepare first.

    Raises:
        UsageError: as ``check_inputs.check`` does.
    """
    table = required_preparation(recipe)
    folder = prepared_dir(table) if table else None
    check_inputs.check(recipe, prepared_later=None if folder and folder.is_dir() else folder)


def launch(plan: RunPlan, doctor: dict[str, Any], view: ProgressView) -> RunResult:
    """Execute a plan whose inputs were checked. It leaves only the run directory and the prepared folder.

    Args:
        doctor: the doctor's report, which is kept in the run directory.

    Raises:
        UsageError: the settings of the preparation are wrong; there is no run directory.
        CheckFailed: the preparation failed; there is no run directory.
        KeyboardInterrupt: interrupted before the run was started.
    """
    recipe = plan.resolved.recipe
    # Until the supervisor runs, a stop request unwinds the stack like Ctrl-C, so that nothing is left.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    peak_bytes = 0
    if table := required_preparation(recipe):
        peak_bytes = prepare(table, os.environ | plan.environment["driver"], view)
        check_inputs.check(recipe)
    write_run_directory(plan, doctor)
    launcher = {
        **asdict(ProcessIdentity.of(os.getpid())),
        "time": time.time(),
        "argv": sys.argv,
        "version": __version__,
        "prepare_peak_bytes": peak_bytes,
    }
    paths = RunPaths(plan.run_dir)
    paths.launcher.write_text(json.dumps(launcher, indent=2) + "\n", encoding="utf-8")
    if notice := npu_notice.text(recipe):
        with paths.driver_log.open("a", encoding="utf-8") as log:
            log.write(notice + "\n")
    result = _follow(plan, view)
    if result.exit_code == 0:
        npu_notice.note_completed(recipe, result.summary)
    return result


def _follow(plan: RunPlan, view: ProgressView) -> RunResult:
    """Start the supervisor, show what the run writes, and forward signals until the supervisor has exited."""
    descendants.adopt_orphans()
    shm = SharedMemoryWatch()
    log = RunLog(plan.run_dir)
    began = time.monotonic()
    with (
        collect_stop_signals() as stop_signals,
        (RunPaths(plan.run_dir).logs / "supervisor.log").open("ab") as errors,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "vimectl.runs.supervisor", str(plan.run_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        supervisor = SupervisorProcess(process, stop_signals, plan.resolved.recipe.cluster)
        while process.poll() is None:
            if log.read():
                view.update(log)
            supervisor.check()
            time.sleep(CHECK_INTERVAL)
        if log.read():
            view.update(log)
        with contextlib.suppress(ValueError):
            summary = json.loads(process.communicate()[0])
            return RunResult(summary, log.last_row)
        # The run outlives its supervisor: this process has adopted its descendants.
        shm.update(all_files=True)
        unkillable = descendants.kill_all(except_pid=process.pid, timeout=KILL_TIMEOUT)
        shm.remove_unused()
        status = supervisor.exit_status()
        if status.exit_code != INTERRUPTED:
            log_files.keep_ray_logs(plan.scratch_dir, plan.run_dir)
        shutil.rmtree(plan.scratch_dir, ignore_errors=True)
        seconds = time.monotonic() - began
        summary = summaries.summarize(plan.run_config(), log, status, seconds, 0, unkillable)
        summaries.write_with_report(plan.run_dir, summary)
        return RunResult(summary, log.last_row)


class SupervisorProcess:
    """Forward signals to the supervisor, and kill it if it is stopped or does not end the run."""

    def __init__(
        self, process: subprocess.Popen[bytes], stop_signals: list[int], cluster: ClusterTable
    ) -> None:
        self._process = process
        self._stop_signals = stop_signals
        self._cluster = cluster
        self._forwarded = 0
        self._deadline = math.inf  # after a stop request
        self._not_stopped_at = time.monotonic()
        self._killed_because = ""

    def check(self) -> None:
        """Forward new signals, and kill the supervisor if that is due."""
        now = time.monotonic()
        for signum in self._stop_signals[self._forwarded :]:
            self._process.send_signal(signum)
            self._deadline = min(self._deadline, now + self._cluster.shutdown_timeout + SHUTDOWN_MARGIN)
        self._forwarded = len(self._stop_signals)
        if process_state(self._process.pid) == "stopped":
            stopped_for = now - self._not_stopped_at
            # The run may continue without supervision: wait as long as for a run that hangs.
            if self._stop_signals or stopped_for > self._cluster.hang_timeout:
                self._kill(f"was stopped for {stopped_for:.0f} s")
        else:
            self._not_stopped_at = now
            if now > self._deadline:
                self._kill("did not end the run after a stop request")

    def exit_status(self) -> ExitStatus:
        """Return the status of a run whose supervisor exited without a summary."""
        if self._stop_signals:
            return ExitStatus(INTERRUPTED, "interrupted")
        process = {"role": SUPERVISOR, "rank": 0, "pid": self._process.pid}
        return blame(process, self._killed_because or exit_text(self._process.returncode))

    def _kill(self, because: str) -> None:
        self._killed_because = because
        self._process.kill()
