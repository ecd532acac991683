"""--fix applies the missing patches of a described machine, and nothing else."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from harness.doctor.described_machine import GALLERY, Machine
from harness.patches import disk_operations
from vimectl.doctor.fix import plan_fixes
from vimectl.patches import series
from vimectl.patches.command import change, status


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file but the tool's own bookkeeping."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and ".vimectl" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.stat().st_size < 2**20}


def test_missing_patches_are_applied_and_can_be_reverted(tmp_path: Path) -> None:
    machine = Machine("patch-lost", tmp_path)
    place = machine.path(machine.last("site"))
    before = snapshot(machine.root)
    report = machine.examine(["patches"])
    with patch.object(series, "data_dir", GALLERY.joinpath):
        found = plan_fixes(report, machine.host)
        assert snapshot(machine.root) == before  # planning changes nothing
        (fix,) = found
        # vllm-ascend was edited, and a program must not undo that.
        assert fix.check == "patches.vllm"
        assert fix.changes == (str(place / "vllm/start.py"),)
        assert fix.command == f"vimectl patch apply vllm --stack ascend-0.22 --target {place}"
        assert fix.undo == fix.command.replace("apply", "revert")
        fix.apply()
        after = snapshot(machine.root)
        changed = {Path(name).name for name in after if after[name] != before[name]}
        assert changed - {"RECORD"} == {"start.py"}
        assert [result.id for result in machine.examine(["patches"]).failures] == ["patches.vllm-ascend"]
        change("revert", status("ascend-0.22", place, ["vllm"]))
    assert snapshot(machine.root) == before


def test_no_fix_without_missing_patches(tmp_path: Path) -> None:
    machine = Machine("visible-twice", tmp_path)
    with patch.object(series, "data_dir", GALLERY.joinpath):
        assert plan_fixes(machine.examine(), machine.host) == []


def test_interrupted_apply_is_reported_with_the_command_that_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    machine = Machine("patch-lost", tmp_path / "root")
    place = machine.path(machine.last("site"))
    with patch.object(series, "data_dir", GALLERY.joinpath):
        work = lambda: change("apply", status("ascend-0.22", place, ["vllm"]))  # noqa: E731
        disk_operations.interrupt(work)
        before = snapshot(machine.root)
        found = machine.check("patches.vllm")
        site = machine.last("site")
        assert found.status == "fail"
        assert f"{site}: an interrupted apply: `vimectl patch recover` finishes it" in found.found
        assert found.fix == f"vimectl patch recover vllm --stack ascend-0.22 --target {place}"
        assert plan_fixes(machine.examine(["patches"]), machine.host) == []
        assert snapshot(machine.root) == before
        # All files are patched, and the change is not finished: still a failure.
        work()
        (place / ".vimectl" / "stage").mkdir()
        assert machine.check("patches.vllm").found.startswith(f"applied; {site}: an interrupted change")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
        (place / ".vimectl" / "journal.json").write_text("{}")
        assert "remove" in machine.check("patches.vllm").fix
