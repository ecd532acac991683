from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from harness.runs.wait import wait_until
from vimectl.runs.process_watch import ProcessIdentity
from vimectl.runs.remove_run import remove
from vimectl.runs.run_directory import RunDirectory

MIB = 1024**2


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A finished run with a model, of which a hard link is elsewhere, and with links out of its directory."""
    path = tmp_path / "runs" / "mine"
    final = path / "checkpoints" / "final"
    final.mkdir(parents=True)
    document = {
        "schema": "vimectl.run/1",
        "recipe": {"recipe": {"name": "tiny"}},
        "mode": "smoke",
        "steps": 4,
        "scratch_dir": "/tmp/vime-00000000",
    }
    (path / "resolved.json").write_text(json.dumps(document))
    (path / "summary.json").write_text('{"ok": true}')
    (final / "model.safetensors").write_bytes(b"x" * MIB)
    (final / "shared.safetensors").write_bytes(b"x" * MIB)
    os.link(final / "shared.safetensors", tmp_path / "kept.safetensors")
    os.link(final / "model.safetensors", final / "again.safetensors")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("{}")
    (path / "data").symlink_to(tmp_path / "data")
    (path / "file").symlink_to(tmp_path / "data" / "train.jsonl")
    (path / "nowhere").symlink_to(tmp_path / "nowhere")
    return RunDirectory(path)


def test_removal_follows_no_link_and_counts_the_freed_bytes(run: RunDirectory, tmp_path: Path) -> None:
    freed = remove(run)
    assert not run.path.exists()
    assert (tmp_path / "data" / "train.jsonl").read_text() == "{}"
    assert (tmp_path / "kept.safetensors").stat().st_size == MIB
    # One of two files of 1 MiB, and some blocks for directories and small files.
    assert MIB <= freed < 2 * MIB


def test_link_to_a_run_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(UsageError, match="is a link") as caught:
        remove(RunDirectory(tmp_path / "link"))
    assert str(run.path) in caught.value.hint
    assert (run.path / "resolved.json").exists()


@pytest.mark.parametrize("content", ['{"name": "of something else"}', '{"recipe": 1, "mode": 2, "steps": 3}'])
def test_other_directory_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "resolved.json").write_text(content)
    with pytest.raises(UsageError, match="is not the file of a run"):
        remove(RunDirectory(tmp_path))
    assert (tmp_path / "resolved.json").exists()


def test_run_of_another_machine_is_refused(run: RunDirectory) -> None:
    (run.path / "summary.json").unlink()
    identity = asdict(ProcessIdentity.of(os.getpid())) | {"host": "elsewhere"}
    (run.path / "launcher.json").write_text(json.dumps(identity))
    with pytest.raises(CheckFailed, match="runs on elsewhere, or was killed there"):
        remove(run)


def test_interrupted_removal_can_be_repeated(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", refuse)
        with pytest.raises(MissingRequirement, match="Permission denied"):
            remove(run)
    assert (run.path / "resolved.json").exists()
    remove(RunDirectory(run.path))
    assert not run.path.exists()


def test_running_run_is_refused_and_a_stopped_one_removed(launch: Callable[..., Any]) -> None:
    launched = launch("FAKE_STEP_SECONDS=60")
    launched.pid("trainer rank")
    with pytest.raises(CheckFailed, match="is running") as caught:
        remove(RunDirectory(launched.run_dir))
    assert "vimectl runs stop" in caught.value.hint
    launched.process.send_signal(signal.SIGTERM)
    launched.wait()
    assert remove(RunDirectory(launched.run_dir)) > 0
    assert not launched.run_dir.exists()


def test_lost_run_is_refused_while_a_process_of_it_is_left(run: RunDirectory, tmp_path: Path) -> None:
    (run.path / "summary.json").unlink()
    scratch = tmp_path.parent / "vime-0123abcd"
    document = run.document | {"scratch_dir": str(scratch)}
    (run.path / "resolved.json").write_text(json.dumps(document))
    left = subprocess.Popen(["sleep", "60"], env=os.environ | {"TMPDIR": str(scratch)})
    try:
        wait_until(lambda: f"TMPDIR={scratch}" in Path(f"/proc/{left.pid}/environ").read_text())
        with pytest.raises(CheckFailed, match=rf"processes of mine are left: {left.pid}$"):
            remove(RunDirectory(run.path))
    finally:
        left.kill()
        left.wait()
    remove(RunDirectory(run.path))
    assert not run.path.exists()
