from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from vimectl.patches import transaction
from vimectl.patches.plan import make_plan
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import PatchTarget
from vimectl.patches.target_lock import locked


@pytest.fixture
def applied(target: PatchTarget, toy_series: Series) -> PatchTarget:
    with locked([target.location]):
        transaction.execute("apply", make_plan("apply", [classify(target, toy_series)]).steps)
    return target


def states(target: PatchTarget, series: Series) -> tuple[str, list[str]]:
    found = classify(target, series)
    return found.state, [patch.state for patch in found.patches]


def test_applied_series_is_applied(applied: PatchTarget, toy_series: Series) -> None:
    assert states(applied, toy_series) == ("applied", ["applied", "applied"])


def test_reinstalled_package_is_pristine(applied: PatchTarget, toy_series: Series) -> None:
    for step in make_plan("revert", [classify(applied, toy_series)]).sources:
        path = applied.location / step.path
        path.unlink() if step.after is None else path.write_bytes(step.after)
    assert states(applied, toy_series) == ("pristine", ["not-applied", "not-applied"])


def test_first_patch_alone_is_partial(applied: PatchTarget, toy_series: Series, location: Path) -> None:
    (location / "toy/both.py").write_bytes(b"a\nB\nc\nd\n")
    (location / "toy/crlf.py").write_bytes(b"one\r\ntwo\xff\r\nthree")
    assert states(applied, toy_series) == ("partial", ["applied", "not-applied"])


def test_patch_with_some_files_missing_is_partial(
    applied: PatchTarget, toy_series: Series, location: Path
) -> None:
    (location / "toy/new.py").unlink()
    assert states(applied, toy_series) == ("partial", ["partial", "applied"])


def test_edit_missing_file_and_link_are_drift(
    applied: PatchTarget, toy_series: Series, location: Path
) -> None:
    path = location / "toy/crlf.py"
    patched = path.read_bytes()
    path.write_bytes(patched + b"\n")
    assert states(applied, toy_series) == ("drifted", ["applied", "drifted"])
    path.unlink()
    assert states(applied, toy_series) == ("drifted", ["applied", "drifted"])
    (location / "kept").write_bytes(patched)
    path.symlink_to(location / "kept")
    assert states(applied, toy_series) == ("drifted", ["applied", "drifted"])
    assert classify(applied, toy_series).drifted == ["toy/crlf.py"]


def test_version_without_series_is_unsupported(target: PatchTarget) -> None:
    status = classify(target, None)
    assert status.state == "unsupported"
    with pytest.raises(CheckFailed, match="no patches for this version"):
        make_plan("apply", [status])
