"""Start the supervisor of a run and watch it; end the run when it has exited without doing so.

`vimectl run` does this in the user's shell. ``python -m vimectl.runs.watch_supervisor RUN_DIR`` is the
launcher of a detached run: it has no terminal and nothing to show.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vime_runtime.spec.errors import INTERRUPTED, UsageError
from vime_runtime.spec.process_roles import SUPERVISOR
from vime_runtime.spec.recipe import ClusterTable
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.spec.run_paths import RunPaths

from vimectl.runs import descendants, log_files, npu_notice
from vimectl.runs import summary as summaries
from vimectl.runs.descendants import SharedMemoryWatch
from vimectl.runs.exit_status import ExitStatus, blame
from vimectl.runs.process_watch import ProcessIdentity, exit_text, process_state
from vimectl.runs.run_directory import RunDirectory
from vimectl.runs.run_log import RunLog
from vimectl.runs.supervised_command import (
    CHECK_INTERVAL,
    KILL_TIMEOUT,
    SHUTDOWN_MARGIN,
    collect_stop_signals,
)

if TYPE_CHECKING:
    from vimectl.runs.progress import ProgressView


@dataclass(frozen=True)
class RunResult:
    """The summary of a run that has ended, and the metrics of its last step."""

    summary: dict[str, Any]
    last_row: dict[str, Any] | None

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return int(self.summary["exit_code"])


def main(argv: list[str]) -> int:
    """Be the launcher of the detached run in a directory, until it has ended. Returns the exit code."""
    paths = RunPaths(Path(argv[1]))
    launcher = json.loads(paths.launcher.read_text(encoding="utf-8"))
    write_launcher(paths, launcher | asdict(ProcessIdentity.of(os.getpid())))
    return watch_supervisor(RunConfig.load(paths.run_file), None).exit_code


def write_launcher(paths: RunPaths, launcher: dict[str, Any]) -> None:
    """Write ``launcher.json``; a reader never finds a part of it."""
    partial = paths.launcher.with_suffix(".partial")
    partial.write_text(json.dumps(launcher, indent=2) + "\n", encoding="utf-8")
    partial.rename(paths.launcher)


def watch_supervisor(config: RunConfig, view: ProgressView | None) -> RunResult:
    """Start the supervisor, show what the run writes, and forward signals until the supervisor has exited."""
    run_dir, scratch_dir = Path(config.run_dir), Path(config.scratch_dir)
    descendants.adopt_orphans()
    shm = SharedMemoryWatch()
    log = RunLog(run_dir)
    if log.read() and view:
        view.resume(log)
    began = time.monotonic()
    with (
        collect_stop_signals() as stop_signals,
        RunPaths(run_dir).supervisor_log.open("ab") as errors,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "vimectl.runs.supervisor", str(run_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        supervisor = SupervisorProcess(process, stop_signals, config.recipe.cluster)
        while process.poll() is None:
            if log.read() and view:
                view.update(log)
            supervisor.check()
            time.sleep(CHECK_INTERVAL)
        if log.read() and view:
            view.update(log)
        with contextlib.suppress(ValueError):
            summary = json.loads(process.communicate()[0])
            if not summary["exit_code"]:
                npu_notice.note_completed(config.recipe, summary)
            return RunResult(summary, log.last_row)
        if RunDirectory(run_dir).is_locked:  # by another supervisor: two commands have resumed the run
            raise UsageError(f"the run in {run_dir} was resumed by another command", "wait for it or stop it")
        # The run outlives its supervisor: this process has adopted its descendants.
        shm.update(all_files=True)
        unkillable = descendants.kill_all(except_pid=process.pid, timeout=KILL_TIMEOUT)
        shm.remove_unused()
        status = supervisor.exit_status()
        if status.exit_code != INTERRUPTED:
            log_files.keep_ray_logs(scratch_dir, run_dir)
        shutil.rmtree(scratch_dir, ignore_errors=True)
        seconds = time.monotonic() - began
        summary = summaries.summarize(config, log, status, seconds, 0, unkillable)
        summaries.write_with_report(run_dir, summary)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
