"""``python -m vimectl.runs.supervisor RUN_DIR``: supervise a run until it has ended, and clean up.

The supervisor starts the runtime, watches it, starts it again if the recipe allows it, ends all processes,
and removes the scratch directory of the run and its files in /dev/shm. It writes ``summary.json`` and prints
its content on stdout. Its stdin is a pipe from the launcher, which closes when the launcher exits; a detached
run continues then. The exit codes are those of `vimectl run`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vime_runtime.spec import events
from vime_runtime.spec.errors import INTERRUPTED
from vime_runtime.spec.process_roles import LAUNCHER
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.spec.run_paths import RunPaths

from vimectl.runs import log_files
from vimectl.runs import summary as summaries
from vimectl.runs.exit_status import ExitStatus, blame, classify, kernel_oom_kills
from vimectl.runs.failures import FailureMonitor
from vimectl.runs.plan import runtime_command
from vimectl.runs.process_watch import ProcessIdentity
from vimectl.runs.run_log import RunLog, append_event
from vimectl.runs.shared_memory_space import SharedMemorySpace
from vimectl.runs.supervised_command import CommandOutcome, collect_stop_signals, run_supervised
from vimectl.util.scratch_directory import scratch_directory

STDIN = 0


def main(argv: list[str]) -> int:
    """Supervise the run in a directory and return the exit code."""
    with collect_stop_signals() as stop_signals:
        run_dir = Path(argv[1])
        run = SupervisedRun(run_dir, stop_signals)
        summary = run.run()
        if not run.is_removed:  # else another directory may be there by now
            summaries.write_with_report(run_dir, summary)
        with contextlib.suppress(BrokenPipeError):  # the launcher has exited
            print(json.dumps(summary), flush=True)
    return int(summary["exit_code"])


class SupervisedRun:
    """One supervised run. ``stop_signals`` are the stop requests received, see ``collect_stop_signals``."""

    def __init__(self, run_dir: Path, stop_signals: list[int]) -> None:
        self._paths = RunPaths(run_dir)
        self._stop_signals = stop_signals
        self._config = RunConfig.load(self._paths.run_file)
        self._scratch_dir = Path(self._config.scratch_dir)
        self._run_log = RunLog(run_dir)
        launcher = json.loads(self._paths.launcher.read_text(encoding="utf-8"))
        self._launcher = {"role": LAUNCHER, "rank": 0, "pid": launcher["pid"]}
        self._detached: bool = launcher["detached"]
        self._abandoned: ExitStatus | None = None  # the launcher has exited
        self._removed: ExitStatus | None = None
        self._run_file_inode = self._paths.run_file.stat().st_ino
        self._peak_bytes: int = launcher["prepare_peak_bytes"]
        self._take_lock()
        summaries.reserve(run_dir)

    def _take_lock(self) -> None:
        """Write the identity of this process, and hold a lock until it exits; see ``RunDirectory``."""
        # Opened without truncation: another supervisor may have the lock. Close-on-exec: no child keeps it.
        descriptor = os.open(self._paths.supervisor, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{self._paths.run_dir} has a supervisor that runs: stop that one first")
        except OSError as e:  # a file system without locks: the identity has to do
            print(f"{self._paths.supervisor}: no lock: {e}", file=sys.stderr)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{json.dumps(asdict(ProcessIdentity.of(os.getpid())))}\n".encode())

    @property
    def is_removed(self) -> bool:
        """True if the run directory was removed during the run."""
        return self._removed is not None

    def run(self) -> dict[str, Any]:
        """Run the runtime until it finishes or must not be started again. Returns the summary."""
        began = time.monotonic()
        if self._run_log.read():
            self._write_restart_event(0, "resumed")
        restarts = 0
        while True:
            status, outcome = self._run_once()
            limit_reached = restarts == self._config.recipe.cluster.restarts
            if not status.restartable or outcome.unkillable or limit_reached:
                break
            restarts += 1
            self._write_restart_event(restarts, status.reason)
        return summaries.summarize(
            self._config,
            self._run_log,
            status,
            seconds=time.monotonic() - began,
            peak_bytes=self._peak_bytes,
            unkillable=outcome.unkillable,
        )

    def _run_once(self) -> tuple[ExitStatus, CommandOutcome]:
        """Start the runtime and wait until it has ended."""
        paths, cluster = self._paths, self._config.recipe.cluster
        monitor = FailureMonitor(self._run_log, cluster.hang_timeout, paths.logs / "stacks.log")
        oom_kills = kernel_oom_kills()
        shm_space = SharedMemorySpace()

        def check() -> bool:
            shm_space.measure()
            return self._is_removed() or (not self._is_abandoned() and monitor.check())

        with scratch_directory(self._scratch_dir, paths.run_dir) as shm_log:
            outcome = run_supervised(
                runtime_command(paths.run_dir),
                os.environ | self._config.environment["driver"],
                stdout=paths.driver_log,
                stderr=paths.driver_log,
                check=check,
                stop_signals=self._stop_signals,
                shutdown_timeout=cluster.shutdown_timeout,
                wait=monitor.wait,
                shm_log=shm_log,
            )
            monitor.close()
            if self._is_removed() and self._removed:
                return self._removed, outcome
            self._run_log.read()
            self._peak_bytes = max(self._peak_bytes, outcome.peak_bytes)
            oom_kills = kernel_oom_kills() - oom_kills
            folders = [paths.run_dir, self._scratch_dir]
            status = self._abandoned or classify(outcome, self._run_log, monitor.cause, oom_kills, folders)
            status = log_files.explain_exit(paths.run_dir, status)
            status = shm_space.explain(status, self._config.recipe.memory.shm_bytes)
            if status.exit_code not in (0, INTERRUPTED):
                log_files.keep_ray_logs(self._scratch_dir, paths.run_dir)
            return status, outcome

    def _is_removed(self) -> bool:
        """Return True if the run directory was removed or replaced: nothing that the run writes is kept."""
        run_dir = self._paths.run_dir
        try:
            removed = self._paths.run_file.stat().st_ino != self._run_file_inode
        except (FileNotFoundError, NotADirectoryError):
            removed = True
        except OSError:  # a file system that does not answer
            return False
        if removed:
            reason = f"the run directory {run_dir} was removed or renamed during the run"
            self._removed = ExitStatus(1, reason, "keep it until the run has ended; start the run again")
        return removed

    def _is_abandoned(self) -> bool:
        """Return True if stdin, a pipe from the launcher, is at its end. That is then a stop request."""
        if self._detached or not select.select([STDIN], [], [], 0)[0] or os.read(STDIN, 1):
            return False
        self._abandoned = blame(self._launcher, "was killed", restartable=False)
        self._stop_signals.append(signal.SIGHUP)
        return True

    def _write_restart_event(self, attempt: int, reason: str) -> None:
        """Record in the event log that the runtime is started again."""
        fields = {"attempt": attempt, "step": len(self._run_log.rows), "reason": reason}
        try:
            append_event(self._paths.run_dir, events.RESTART, **fields)
        except OSError as e:
            print(f"{e}; not written: restart {attempt}: {reason}", file=sys.stderr)
        self._run_log.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
