"""What --fix does to a described machine: the missing patches, and nothing else."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from harness.doctor.described_machine import GALLERY, Machine
from vimectl.doctor.repair import repairs
from vimectl.patches import change, series, status


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file but the tool's own bookkeeping."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and ".vimectl" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.stat().st_size < 2**20}


def test_lost_patches_come_back_and_can_be_taken_back(tmp_path: Path) -> None:
    machine = Machine("patch-lost", tmp_path)
    place = machine.path(machine.last("site"))
    before = snapshot(machine.root)
    report = machine.examine(["patches"])
    with patch.object(series, "data_dir", GALLERY.joinpath):
        found = repairs(report, machine.host)
        assert snapshot(machine.root) == before  # nothing is changed by looking
        (repair,) = found
        # vllm-ascend was edited by somebody: that is not for a program to undo.
        assert repair.mends == "patches.vllm"
        assert repair.changes == (str(place / "vllm/start.py"),)
        assert repair.command == f"vimectl patch apply vllm --stack ascend-0.22 --target {place}"
        assert repair.undo == repair.command.replace("apply", "revert")
        repair.make()
        after = snapshot(machine.root)
        changed = {Path(name).name for name in after if after[name] != before[name]}
        assert changed - {"RECORD"} == {"start.py"}
        assert [f.id for f in machine.examine(["patches"]).failures] == ["patches.vllm-ascend"]
        change("revert", status("ascend-0.22", place, ["vllm"]))
    assert snapshot(machine.root) == before


def test_nothing_is_mended_where_nothing_is_missing(tmp_path: Path) -> None:
    machine = Machine("visible-twice", tmp_path)
    with patch.object(series, "data_dir", GALLERY.joinpath):
        assert repairs(machine.examine(), machine.host) == []
