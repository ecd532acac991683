"""Execute a plan: prepare model and data, start the supervisor, show the progress, return the result.

The supervisor is a separate process and owns the run. It ends the run when the launcher has exited, unless
the run is detached. The launcher ends the run when the supervisor has exited without doing so. The launcher
is this process, or for a detached run another one, in a session that does not end with the user's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import CheckFailed
from vime_runtime.spec.private_values import pass_on
from vime_runtime.spec.process_roles import SUPERVISOR
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.run_paths import RunPaths

from vimectl import __version__
from vimectl.recipes import check_inputs
from vimectl.recipes.resolve import prepared_dir, required_preparation
from vimectl.runs import npu_notice
from vimectl.runs.plan import RunPlan, write_run_directory
from vimectl.runs.prepare import prepare
from vimectl.runs.process_watch import ProcessIdentity
from vimectl.runs.progress import ProgressView
from vimectl.runs.read_data import read_data
from vimectl.runs.run_directory import RunDirectory
from vimectl.runs.supervised_command import CHECK_INTERVAL
from vimectl.runs.watch_supervisor import RunResult, watch_supervisor, write_launcher
from vimectl.util.secrets import redact_arguments


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
        UsageError: the preparation or the data cannot be used; there is no run directory.
        CheckFailed: preparing or reading failed; there is no run directory.
        KeyboardInterrupt: interrupted before the run was started.
    """
    plan = _prepare_run(plan, doctor, view, detached=False)
    return watch_supervisor(plan.run_config(), view)


def launch_detached(plan: RunPlan, doctor: dict[str, Any], view: ProgressView) -> None:
    """Execute a plan as ``launch`` does, in a new session, and return when its supervisor has started.

    Raises:
        UsageError, CheckFailed, KeyboardInterrupt: as ``launch`` raises them.
        CheckFailed: the supervisor did not start.
    """
    _prepare_run(plan, doctor, view, detached=True)
    log_file = RunPaths(plan.run_dir).supervisor_log
    with log_file.open("ab") as log:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "vimectl.runs.watch_supervisor", str(plan.run_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not _has_supervisor(plan.run_dir):
            if launcher.poll() is not None:
                raise CheckFailed("the supervisor of the run did not start", f"{log_file} may say why")
            time.sleep(CHECK_INTERVAL / 5)
    except KeyboardInterrupt:
        launcher.terminate()
        launcher.wait()
        raise


def _has_supervisor(run_dir: Path) -> bool:
    """Return True if a supervisor owns the run, or has ended it."""
    run = RunDirectory(run_dir)
    supervisor = run.owners.get(SUPERVISOR)
    return bool(supervisor and supervisor.is_alive) or run.summary is not None


def _prepare_run(plan: RunPlan, doctor: dict[str, Any], view: ProgressView, detached: bool) -> RunPlan:
    """Prepare model and data, and make the run directory. Return the plan with the number of steps."""
    recipe = plan.resolved.recipe
    # Until the supervisor runs, a stop request unwinds the stack like Ctrl-C, so that nothing is left.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    peak_bytes = 0
    if table := required_preparation(recipe):
        peak_bytes = prepare(table, os.environ | plan.environment["driver"], view)
        check_inputs.check(recipe)
    with read_data(plan, view) as plan:
        write_run_directory(plan, doctor)
    pass_on(plan.resolved.private)
    launcher = {
        **asdict(ProcessIdentity.of(os.getpid())),
        "time": time.time(),
        "argv": redact_arguments(sys.argv),
        "version": __version__,
        "prepare_peak_bytes": peak_bytes,
        "detached": detached,
    }
    paths = RunPaths(plan.run_dir)
    write_launcher(paths, launcher)
    if notice := npu_notice.text(recipe):
        with paths.driver_log.open("a", encoding="utf-8") as log:
            log.write(notice + "\n")
    return plan
