"""Port the shipped series to other releases from pip's index; cached files need no network."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

from vimectl.patches import series
from vimectl.patches.port.command import port_series

pytestmark = pytest.mark.needs("network")


@pytest.mark.parametrize(
    ("package", "old", "new"),
    [
        ("vllm-ascend", "0.22.1rc1", "0.20.2rc1"),
        ("vllm-ascend", "0.22.1rc1", "0.23.0"),
        ("vllm-ascend", "0.22.1rc1", "0.30.0rc2"),
        ("vllm", "0.22.1", "0.23.0"),
    ],
)
def test_port_equals_the_series_written_by_hand(tmp_path: Path, package: str, old: str, new: str) -> None:
    outcome = port_series(package, old, new, out=tmp_path / "out")
    assert outcome.written
    assert series.read(outcome.written).chains == series.load(package, new).chains


def test_conflict_names_both_versions(tmp_path: Path) -> None:
    outcome = port_series("vllm", "0.22.1", "0.30.0", out=tmp_path / "out")
    assert [patch.result for patch in outcome.patches] == ["conflict", "conflict"]
    stale = outcome.patches[1]
    assert "1 place where both changed the same lines" in stale.files[0].note
    assert outcome.conflicts
    text = (outcome.conflicts / stale.id / stale.files[0].path).read_text()
    assert text.count("<<<<<<< vllm 0.30.0\n") == text.count(">>>>>>> 0002-stale-async-output\n") == 1


def test_upstream_changes_are_recognized(tmp_path: Path) -> None:
    # vLLM 0.33.0 has the arguments of the sleep mode backend that the patch for 0.32.0 adds.
    outcome = port_series("vllm", "0.32.0", "0.33.0", out=tmp_path / "out")
    (sleep,) = (patch for patch in outcome.patches if patch.id == "0002-cpu-sleep-mode-backend")
    found = {file.path: file for file in sleep.files}
    upstream = found["vllm/engine/arg_utils.py"]
    assert (upstream.result, upstream.note) == ("upstream", "vllm 0.33.0 has it")
    assert found["vllm/device_allocator/sleep_mode_backend.py"].result == "clean"


def test_newest_release_is_found(tmp_path: Path) -> None:
    outcome = port_series("vllm-ascend", "0.30.0rc2", "newest", out=tmp_path / "out")
    assert Version(outcome.new) >= Version("0.30.0rc2")
    assert outcome.patches
