from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from vimectl.patches import series, transaction
from vimectl.patches.plan import PatchAction, PatchPlan, make_plan
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import PatchTarget
from vimectl.patches.target_lock import locked

Snapshot = Callable[..., dict[str, tuple[int, bytes]]]


def run(action: PatchAction, target: PatchTarget, series: Series) -> PatchPlan:
    with locked([target.location]):
        plan = make_plan(action, [classify(target, series)])
        if plan.steps:
            transaction.execute(action, plan.steps)
    return plan


def test_revert_restores_everything(target: PatchTarget, toy_series: Series, snapshot: Snapshot) -> None:
    (target.location / "toy/both.py").chmod(0o640)
    before = snapshot(target.location)
    changed = run("apply", target, toy_series).changed()
    assert {Path(one["path"]).name for one in changed} == {"both.py", "crlf.py", "new.py"}
    assert snapshot(target.location) != before
    assert run("apply", target, toy_series).steps == ()
    run("revert", target, toy_series)
    assert snapshot(target.location) == before


def test_outdated_record_is_corrected(target: PatchTarget, toy_series: Series) -> None:
    assert target.record
    pristine = target.record.read_bytes()
    run("apply", target, toy_series)
    assert target.record.read_bytes() != pristine
    # A RECORD for other content is corrected even if no source needs a change.
    target.record.write_bytes(pristine)
    plan = run("apply", target, toy_series)
    assert plan.sources == ()
    assert [step.path for step in plan.bookkeeping] == ["toy_cpu-1.0.dist-info/RECORD"]


def test_edited_file_is_refused_and_shown(target: PatchTarget, toy_series: Series) -> None:
    run("apply", target, toy_series)
    path = target.location / "toy/both.py"
    path.write_bytes(path.read_bytes() + b"my edit\n")
    for action in ("apply", "revert"):
        with pytest.raises(CheckFailed, match=r"\+my edit") as caught:
            run(action, target, toy_series)
        assert "-d" not in caught.value.message  # compared with the patched file, not with the release
    assert path.read_bytes().endswith(b"my edit\n")


def test_edited_file_without_released_copy_is_refused(target: PatchTarget, toy_series: Series) -> None:
    (target.location / "toy/both.py").write_bytes(b"mine\n")
    with pytest.raises(CheckFailed, match=r"no copy of toy/both\.py as released"):
        run("apply", target, toy_series)


def test_revised_series_replaces_the_earlier_one(
    target: PatchTarget, toy_series: Series, tmp_path: Path, snapshot: Snapshot
) -> None:
    before = snapshot(target.location)
    run("apply", target, toy_series)
    # The revision does not have the second patch.
    revised = tmp_path / "revised"
    shutil.copytree(toy_series.directory, revised)
    text = (revised / "series.toml").read_text()
    (revised / "series.toml").write_text(text[: text.rindex("[[patch]]")])
    new = series.read(revised)
    status = classify(target, new)
    assert dict(status.patches[0].files)["toy/both.py"] == "outdated"
    assert status.state == "partial"
    run("apply", target, new)
    assert (target.location / "toy/both.py").read_bytes() == b"a\nB\nc\nd\n"
    assert (target.location / "toy/crlf.py").read_bytes() == b"one\r\ntwo\xff\r\nthree"
    assert classify(target, new).state == "applied"
    run("revert", target, new)
    assert snapshot(target.location) == before
