"""Apply and revert every kind of change: contents, modes, folders, RECORD; and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from harness.patches import toy_packages
from harness.patches.toy_packages import snapshot
from vimectl.patches import command
from vimectl.patches.distribution import count_matching
from vimectl.patches.plan import PatchAction, PatchPlan
from vimectl.patches.series import Series
from vimectl.patches.series import read as read_series
from vimectl.patches.state import TargetStatus, classify
from vimectl.patches.target import PatchTarget, find_at

Classify = Callable[[list[Path]], list[TargetStatus]]


def states(found: list[TargetStatus]) -> list[str]:
    return [one.state for one in found]


def run(action: PatchAction, target: PatchTarget, series: Series) -> PatchPlan:
    return command.change(action, [classify(target, series)]).plan


def test_apply_and_revert_of_every_kind_of_change(rich_stack: list[Path], classify_all: Classify) -> None:
    before = snapshot(*rich_stack)
    assert states(classify_all(rich_stack)) == ["pristine", "pristine"]
    outcome = command.change("apply", classify_all(rich_stack))
    assert states(outcome.targets) == ["applied", "applied"]
    for place, name in zip(rich_stack, ("one", "two"), strict=True):
        package = place / name
        assert not (package / "gone.py").exists()
        assert not (package / "old_name.py").exists()
        assert b"LINE 7\n" in (package / "new_name.py").read_bytes()
        assert (package / "crlf.py").read_bytes() == b"one\r\nTWO\xff\r\nthree"
        assert (package / "both.py").stat().st_mode & 0o7777 == 0o640
        assert (package / "empty.py").read_bytes() == (package / "emptied.py").read_bytes() == b""
        assert (package / "fresh/deep/new.py").read_bytes() == b"made by a patch\n"
        assert os.access(package / "fresh/tool", os.X_OK)
        assert (package / "run.sh").stat().st_mode & 0o111
    assert command.change("apply", classify_all(rich_stack)).plan.steps == ()
    outcome = command.change("revert", classify_all(rich_stack))
    assert states(outcome.targets) == ["pristine", "pristine"]
    assert snapshot(*rich_stack) == before


def test_record_matches_the_patched_files(rich_stack: list[Path], classify_all: Classify) -> None:
    command.change("apply", classify_all(rich_stack))
    site = rich_stack[0]
    text = (site / "one_cpu-1.0.dist-info" / "RECORD").read_bytes()
    files = {
        str(path.relative_to(site)): path.read_bytes() for path in (site / "one").rglob("*") if path.is_file()
    }
    assert count_matching(text, files) == len(files)
    assert len(text.splitlines()) == len(files) + 1


def test_wrong_mode_counts_as_not_applied(
    rich_stack: list[Path], classify_all: Classify, rich_series: dict[str, Series]
) -> None:
    command.change("apply", classify_all(rich_stack))
    (rich_stack[0] / "one/run.sh").chmod(0o644)
    found = classify_all(rich_stack)[0]
    assert dict(found.patches[0].files)["one/run.sh"] == "not-applied"
    assert found.state == "partial"
    (rich_stack[0] / "one/both.py").chmod(0o755)  # the series states no mode for this file
    assert dict(classify_all(rich_stack)[0].patches[0].files)["one/both.py"] == "applied"
    outcome = command.change("apply", classify_all(rich_stack))
    assert [Path(one["path"]).name for one in outcome.plan.changed()] == ["run.sh"]
    assert states(outcome.targets) == ["applied", "applied"]


def test_symbolic_links_are_created_changed_and_removed(tmp_path: Path, memory: Path) -> None:
    init: toy_packages.Tree = {"linked/__init__.py": (0o644, b""), "linked/a.py": (0o644, b"a\n")}
    stages = [
        init | {"linked/moved": (toy_packages.LINK, b"a.py"), "linked/gone": (toy_packages.LINK, b"a.py")},
        init
        | {"linked/moved": (toy_packages.LINK, b"__init__.py"), "linked/made": (toy_packages.LINK, b"a.py")},
    ]
    series = toy_packages.build_series("linked", stages, tmp_path / "series")
    place = memory / "tree"
    toy_packages.lay(place, stages[0])
    before = snapshot(place)

    def classify_all() -> list[TargetStatus]:
        found = find_at(place, "linked", "linked", version="1.0")
        return [classify(found, series)]

    assert states(classify_all()) == ["pristine"]
    assert states(command.change("apply", classify_all()).targets) == ["applied"]
    links = {path.name: str(path.readlink()) for path in (place / "linked").iterdir() if path.is_symlink()}
    assert links == {"moved": "__init__.py", "made": "a.py"}
    assert states(command.change("revert", classify_all()).targets) == ["pristine"]
    assert snapshot(place) == before
    # A file whose content is the link's target is not that link.
    (place / "linked/moved").unlink()
    (place / "linked/moved").write_bytes(b"a.py")
    assert states(classify_all()) == ["drifted"]


def test_outdated_record_is_corrected(target: PatchTarget, toy_series: Series) -> None:
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
    message = r"# toy/both\.py: its edits cannot be shown: no copy of toy/both\.py as released"
    with pytest.raises(CheckFailed, match=message):
        run("apply", target, toy_series)


def test_revised_series_replaces_the_earlier_one(
    target: PatchTarget, toy_series: Series, tmp_path: Path
) -> None:
    before = snapshot(target.location)
    run("apply", target, toy_series)
    # The revision does not have the second patch.
    revised = tmp_path / "revised"
    shutil.copytree(toy_series.directory, revised)
    (revised / "series").write_text("0001-first.patch\n")
    new = read_series(revised)
    status = classify(target, new)
    assert dict(status.patches[0].files)["toy/both.py"] == "outdated"
    assert status.state == "partial"
    run("apply", target, new)
    assert (target.location / "toy/both.py").read_bytes() == b"a\nB\nc\nd\n"
    assert (target.location / "toy/crlf.py").read_bytes() == b"one\r\ntwo\xff\r\nthree"
    assert classify(target, new).state == "applied"
    run("revert", target, new)
    assert snapshot(target.location) == before
