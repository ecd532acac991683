from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.runs.process_watch import ProcessIdentity
from vimectl.runs.run_directory import RunDirectory, find_run, list_runs, stop_run

HERE = asdict(ProcessIdentity.of(os.getpid()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs that began in the order tiny-3, tiny-1, tiny-2."""
    for age, name in enumerate(("tiny-3", "tiny-1", "tiny-2")):
        run_file = tmp_path / "runs" / name / "resolved.json"
        run_file.parent.mkdir(parents=True)
        run_file.touch()
        os.utime(run_file, (1000 + age, 1000 + age))
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def test_list_is_in_order_of_age(folder: Path) -> None:
    assert list(list_runs(folder)) == ["tiny-3", "tiny-1", "tiny-2"]


def test_find_by_path_name_and_last(folder: Path) -> None:
    assert find_run(str(folder / "tiny-1"), folder).path == folder / "tiny-1"
    assert find_run("tiny-1", folder).path == folder / "tiny-1"
    assert find_run("last", folder).path == folder / "tiny-2"


def test_unknown_run_is_an_error_with_the_nearest_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown run 'tiny-4'. Did you mean tiny-"):
        find_run("tiny-4", folder)
    with pytest.raises(UsageError) as caught:
        find_run("last", tmp_path / "none")
    assert "there are no runs in" in caught.value.hint


def test_run_with_a_damaged_file_is_named(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"tiny-1/resolved\.json is not the file of a run"):
        find_run("tiny-1", folder).as_json()


def write(run_dir: Path, **files: Any) -> RunDirectory:
    for name, content in files.items():
        (run_dir / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return RunDirectory(run_dir)


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"summary": {"ok": True}, "launcher": HERE}, "finished"),
        ({"summary": {"ok": False, "exit_code": 130}, "launcher": HERE}, "interrupted"),
        ({"summary": {"ok": False, "exit_code": 1}, "launcher": HERE}, "failed"),
        ({"launcher": HERE}, "running"),
        ({"launcher": HERE | {"started": HERE["started"] - 1}, "supervisor": HERE}, "running"),
        ({"launcher": HERE | {"started": HERE["started"] - 1}}, "lost"),  # another process has the id
        ({"launcher": HERE | {"pid": 2**22 + 1}}, "lost"),
        ({"launcher": HERE | {"host": "elsewhere"}}, "running"),  # unknown
        ({"launcher": {"pid": 1}}, "lost"),
        ({"summary": "{", "launcher": HERE}, "running"),  # it is being written
        ({}, "lost"),
    ],
)
def test_state(tmp_path: Path, files: dict[str, Any], state: str) -> None:
    assert write(tmp_path, **files).state == state


def test_running_owner_is_the_supervisor_before_the_launcher(tmp_path: Path) -> None:
    other = asdict(ProcessIdentity.of(os.getppid()))
    owner = write(tmp_path, launcher=HERE, supervisor=other).running_owner
    assert owner is not None
    assert owner.pid == os.getppid()
    owner = write(tmp_path, supervisor=other | {"pid": 2**22 + 1}).running_owner
    assert owner is not None
    assert owner.pid == os.getpid()
    assert write(tmp_path, launcher=HERE | {"host": "elsewhere"}).running_owner is None


def test_last_checkpoint_is_the_newest_complete_one(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.last_checkpoint is None
    for name in ("step-000002", "step-000010", "step-000011.partial", "final"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "manifest.json").touch()
    (tmp_path / "checkpoints" / "step-000012").mkdir()
    assert run.last_checkpoint == "checkpoints/step-000010"


def test_show_and_stop_a_run_of_another_shell(launch: Callable[..., Any]) -> None:
    launched = launch("FAKE_STEP_SECONDS=60")
    rank = launched.pid("trainer rank")
    run = RunDirectory(launched.run_dir)
    assert run.state == "running"
    found = {entry["role"]: entry for entry in run.processes()}
    assert found["launcher"]["pid"] == launched.process.pid
    assert found["supervisor"]["pid"] == launched.supervisor
    assert found["trainer rank"]["state"] in ("running", "waiting")  # it may read from the disk
    assert (found["trainer rank"]["pid"], found["trainer rank"]["node"]) == (rank, os.uname().nodename)

    ended = stop_run(run)
    assert ended.state == "interrupted"
    assert not any(entry["state"] for entry in ended.processes() if entry["role"] != "launcher")
    assert launched.wait()[0] == 130
    assert stop_run(RunDirectory(launched.run_dir)).state == "interrupted"  # nothing to do


def test_stop_does_not_signal_a_process_that_reuses_an_id(launch: Callable[..., Any]) -> None:
    launched = launch("FAKE_STEP_SECONDS=60")
    launched.pid("trainer rank")
    launched.process.send_signal(signal.SIGSTOP)  # it would clean up
    supervisor = psutil.Process(launched.supervisor)
    supervisor.kill()
    launched.process.kill()
    launched.process.wait()
    psutil.wait_procs([supervisor])  # until then it holds its lock
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        for name in ("launcher.json", "supervisor.json"):
            identity = json.loads((launched.run_dir / name).read_text())
            (launched.run_dir / name).write_text(json.dumps(identity | {"pid": bystander.pid}))
        run = RunDirectory(launched.run_dir)
        assert run.state == "lost"
        with pytest.raises(CheckFailed, match="its supervisor has exited"):
            stop_run(run)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        for entry in RunDirectory(launched.run_dir).log.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry["pid"], signal.SIGKILL)
        shutil.rmtree(launched.scratch_dir)
