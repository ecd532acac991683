from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.runs import catalog, run_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, name in enumerate(("tiny-3", "tiny-1", "tiny-2")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / run_state.RUN_FILE).touch()
        os.utime(run / run_state.RUN_FILE, (1000 + age, 1000 + age))
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def test_lists_run_directories_oldest_first(folder: Path) -> None:
    assert list(catalog.kept_in(folder)) == ["tiny-3", "tiny-1", "tiny-2"]


def test_finds_by_path_by_name_and_the_last(folder: Path) -> None:
    assert catalog.find(str(folder / "tiny-1"), folder) == folder / "tiny-1"
    assert catalog.find("tiny-1", folder) == folder / "tiny-1"
    assert catalog.find("last", folder) == folder / "tiny-2"


def test_an_unknown_run_is_refused_with_the_nearest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown run 'tiny-4'. Did you mean tiny-"):
        catalog.find("tiny-4", folder)
    with pytest.raises(UsageError) as caught:
        catalog.find("last", tmp_path / "none")
    assert "there are no runs in" in caught.value.hint


def test_a_running_run_is_shown_and_stopped_from_another_shell(launch: Callable[..., Any]) -> None:
    started = launch("STANDIN_STEP_SECONDS=60")
    rank = started.pid("trainer rank")
    run = catalog.Run(started.run_dir)
    assert run.state == "running"
    found = {entry["role"]: entry for entry in run.processes()}
    assert found["launcher"]["pid"] == started.process.pid
    assert found["supervisor"]["pid"] == started.supervisor
    assert found["trainer rank"]["state"] == "running"
    assert (found["trainer rank"]["pid"], found["trainer rank"]["node"]) == (rank, os.uname().nodename)

    ended = catalog.stop(run)
    assert ended.state == "interrupted"
    assert not any(entry["state"] for entry in ended.processes() if entry["role"] != "launcher")
    assert started.wait(5)[0] == 130
    assert catalog.stop(catalog.Run(started.run_dir)).state == "interrupted"  # nothing to do any more


def test_a_run_that_lost_everybody_is_lost_and_its_ids_are_not_trusted(launch: Callable[..., Any]) -> None:
    started = launch("STANDIN_STEP_SECONDS=60")
    started.pid("trainer rank")
    started.process.send_signal(signal.SIGSTOP)  # it would clean up
    os.kill(started.supervisor, signal.SIGKILL)
    started.process.kill()
    started.process.wait()
    # The ids come to mean somebody else.
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        for name in ("launcher.json", "supervisor.json"):
            identity = json.loads((started.run_dir / name).read_text())
            (started.run_dir / name).write_text(json.dumps(identity | {"pid": bystander.pid}))
        run = catalog.Run(started.run_dir)
        assert run.state == "lost"
        with pytest.raises(CheckFailed, match="its supervisor is gone"):
            catalog.stop(run)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        for entry in catalog.Run(started.run_dir).journal.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry["pid"], signal.SIGKILL)
        shutil.rmtree(started.scratch_dir)
