"""Bring several packages and work trees to what a project file says, in one transaction."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from vime_runtime.spec.errors import CheckFailed

from harness.git import git
from harness.patches.five_targets import FIRST, LINES, SECOND, FiveTargets
from vimectl.cli import run_cli
from vimectl.patches import command
from vimectl.patches.selection import Selection


@pytest.fixture
def project(memory: Path, monkeypatch: pytest.MonkeyPatch) -> FiveTargets:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    (memory / "project").mkdir()
    return FiveTargets(memory / "project")


def test_apply_becomes_what_the_project_says(project: FiveTargets) -> None:
    released = project.now()
    assert project.states() == ["pristine"] * 5
    project.change("apply")
    first = project.now()
    assert project.states() == ["applied"] * 5
    assert git(project.folder / "megatron-lm", "status", "--porcelain").split() == [
        b"M",
        b"megatron/training/training.py",
    ]
    project.write(SECOND)
    plan = command.change("apply", project.selection().statuses(), dry_run=True).plan
    assert {move.package: (move.reverted, move.applied) for move in plan.moves} == {
        "serving": (("0001-free-memory",), ("0001-free-memory",)),
        "megatron-lm": (("0002-rng", "0001-device"), ("0001-rng", "0002-device")),
        "megatron-bridge": (("0001-export",), ("0001-export",)),
        "mindspeed": (("0001-adaptor",), ("0001-adaptor",)),
    }
    # What is the same before and after is not written: the two patches that change places.
    changed = {Path(one["path"]).name for one in plan.changed()}
    assert changed == {"worker.py", "models.py", "ci.yml", "megatron_adaptor.py"}
    assert project.now() == first
    project.change("apply")
    assert project.states() == ["applied"] * 5
    assert (project.folder / "megatron-bridge/src/megatron/bridge/models.py").read_bytes() == b"".join(LINES)
    project.write(FIRST)
    project.change("apply")
    assert project.now() == first
    project.change("revert")
    assert project.now() == released


def test_patches_that_the_project_no_longer_has_are_reverted(project: FiveTargets) -> None:
    project.change("apply")
    path = project.folder / "mindspeed/mindspeed/megatron_adaptor.py"
    assert path.read_bytes() != b"".join(LINES)
    file = project.folder / "vimectl.toml"
    file.write_text(file.read_text().replace('["patches/mindspeed"]', "[]"))
    plan = project.change("apply").plan
    assert [(one.package, one.reverted) for one in plan.moves] == [("mindspeed", ("0001-adaptor",))]
    assert path.read_bytes() == b"".join(LINES)
    assert project.states() == ["applied"] * 4


def test_edited_target_stops_all_of_them(project: FiveTargets) -> None:
    path = project.folder / "mindspeed/mindspeed/megatron_adaptor.py"
    path.write_bytes(path.read_bytes() + b"mine\n")
    before = project.now()
    with pytest.raises(CheckFailed, match=r"(?s)mindspeed.*was edited.*\+mine"):
        project.change("apply")
    assert project.now() == before
    command.change("apply", project.selection().statuses(), merge=True)
    assert project.states() == ["applied"] * 5
    project.write(SECOND)  # the edit moves on to the other patches
    command.change("apply", project.selection().statuses(), merge=True)
    assert path.read_bytes().endswith(b"mine\n")
    assert b"ONE\n" in path.read_bytes()
    project.change("revert")
    assert project.now() == before


def test_patches_of_other_tools_are_adopted(project: FiveTargets, capsys: pytest.CaptureFixture[str]) -> None:
    released = project.now()
    for package in FIRST:
        place = project.site if package.startswith("serving") else project.folder / package
        for patch in sorted((project.folder / "patches" / package).glob("*.patch")):
            git(place, "apply", str(patch))
    assert [(one.state, one.applied) for one in project.selection().statuses()] == [("applied", None)] * 5
    arguments = ["--stack", str(project.folder / "vimectl.toml")]
    assert run_cli(["patch", "status", *arguments]) == 0
    assert "to take it over: vimectl patch adopt mindspeed" in capsys.readouterr().out
    # The series on the disk is newer than what the other tool applied.
    older = project.folder / "older"
    (project.folder / "patches/mindspeed").rename(older)
    project.write(SECOND)
    with pytest.raises(CheckFailed, match="drifted, not applied, so there is nothing to adopt"):
        command.adopt(Selection(("mindspeed",), stack=arguments[1]).statuses())
    command.adopt(Selection(("mindspeed",), series=older, directory=project.folder / "mindspeed").statuses())
    project.write({**FIRST, "mindspeed": SECOND["mindspeed"]})
    assert run_cli(["patch", "apply", *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [move["package"] for move in document["moves"]] == ["mindspeed"]
    assert run_cli(["patch", "revert", *arguments]) == 0
    capsys.readouterr()
    assert project.now() == released


# Every operation in `make test-exhaustive`; the everyday suite takes some of them.
@pytest.mark.slow
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.exhaustive), 29])
def test_kill_at_any_operation_of_any_step(
    project: FiveTargets, every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    released = project.now()
    points: dict[str, Counter[str]] = {}
    with mock.patch("os.fsync", return_value=None):
        points["apply"] = project.kill_everywhere("apply", every)
        project.write(SECOND)
        points["apply the changed patches"] = project.kill_everywhere("apply", every)
        points["revert"] = project.kill_everywhere("revert", every)
    assert project.now() == released
    with capsys.disabled():
        for step, reached in points.items():
            print(f"\n{step}: killed at {sum(reached.values())} points: {dict(reached)}", end="")
