"""Look at targets with an unfinished change, and finish it only on request."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.patches import disk_operations
from harness.patches.toy_packages import snapshot
from vimectl.cli import run_cli
from vimectl.patches import command
from vimectl.patches.blobs import blob_id
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import PatchTarget


@pytest.fixture
def interrupted(location: Path, target: PatchTarget, toy_series: Series) -> Path:
    """Return a target with an apply that was killed before it replaced the first source file."""
    disk_operations.interrupt(lambda: command.change("apply", [classify(target, toy_series)]))
    return location


@pytest.fixture
def patch(toy_series: Series, location: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return a function that runs a command on the target and returns its exit code and output."""

    def run(name: str, *words: str) -> tuple[int, str]:
        chosen = ["--series", str(toy_series.directories[0]), "--target", str(location), "toy"]
        if name == "list":  # its targets are those of a project
            project = location.parent / "vimectl.toml"
            project.write_text(
                f"[patches]\ntoy = ['{toy_series.directories[0]}']\n[targets]\ntoy = '{location}'\n"
            )
            chosen = ["--stack", str(project), "toy"]
        code = run_cli(["patch", name, *chosen, *words])
        out, err = capsys.readouterr()
        return code, out + err

    return run


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [("status", (), 0), ("verify", (), 1), ("diff", (), 0), ("list", (), 0), ("apply", ("--dry-run",), 0)],
)
def test_looking_reports_an_unfinished_change_and_writes_nothing(
    interrupted: Path, patch: Callable[..., Any], name: str, words: tuple[str, ...], code: int
) -> None:
    before = snapshot(interrupted)
    found, text = patch(name, *words)
    assert found == code, text
    assert "an interrupted apply: `vimectl patch recover` finishes it" in " ".join(text.split())
    assert snapshot(interrupted) == before


def test_recover_finishes_the_change(interrupted: Path, patch: Callable[..., Any]) -> None:
    code, text = patch("recover", "--json")
    assert code == 0
    assert "an interrupted apply was finished" in " ".join(text.split())
    document, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    assert document["targets"][0]["state"] == "applied"
    assert document["targets"][0]["unfinished"] is None
    assert patch("recover")[0] == 0  # nothing is left to do


def test_apply_finishes_the_change_first(interrupted: Path, patch: Callable[..., Any]) -> None:
    code, text = patch("revert")
    assert code == 0
    assert "an interrupted apply was finished" in " ".join(text.split())
    assert not (interrupted / ".vimectl").exists()


def test_change_without_its_record_is_reported_and_not_executed(
    interrupted: Path, patch: Callable[..., Any], user_state: Path
) -> None:
    (record,) = (user_state / "vimectl" / "changes").iterdir()
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.stat().st_mode & 0o777 == 0o700
    record.unlink()
    before = snapshot(interrupted)
    for name in ("status", "verify", "diff", "apply", "revert", "recover"):
        code, text = patch(name)
        assert code == 1, (name, text)
        assert "this user did not begin" in " ".join(text.split()), (name, text)
    assert snapshot(interrupted) == before


CONTENT = b"x = 1\n"


def test_journal_that_was_edited_after_its_change_began_is_not_executed(
    interrupted: Path, patch: Callable[..., Any]
) -> None:
    """The owner of the target can read the token of a change in it, so a known token proves nothing."""
    journal = interrupted / ".vimectl" / "journal.json"
    journal.write_bytes(journal.read_bytes() + b"\n")  # the same moves
    before = snapshot(interrupted)
    code, text = patch("recover")
    assert code == 1, text
    assert "was finished" not in text
    assert snapshot(interrupted) == before


def move(path: str, before: bytes | None, after: bytes | None) -> dict[str, object]:
    blobs = [None if content is None else blob_id(content) for content in (before, after)]
    modes = [None if content is None else 0o100644 for content in (before, after)]
    return {
        "root": 0,
        "path": path,
        "before": blobs[0],
        "after": blobs[1],
        "before_mode": modes[0],
        "after_mode": modes[1],
    }


@pytest.mark.parametrize("name", ["status", "verify", "diff", "apply", "recover"])
@pytest.mark.parametrize(
    ("moves", "folders"),
    [
        ([move("link/mod.py", None, CONTENT)], []),  # removes the bytecode of what is there already
        ([], [[0, "link/empty"]]),
        ([move("link/mod.py", CONTENT, None)], []),
        ([move("../victim/mod.py", CONTENT, None)], []),
    ],
)
def test_downloaded_journal_changes_nothing(
    location: Path,
    tmp_path: Path,
    patch: Callable[..., Any],
    name: str,
    moves: list[dict[str, object]],
    folders: list[list[object]],
) -> None:
    victim = tmp_path / "victim"
    (victim / "__pycache__").mkdir(parents=True)
    (victim / "empty").mkdir()
    (victim / "mod.py").write_bytes(CONTENT)
    (victim / "__pycache__" / "mod.cpython-311.pyc").write_bytes(b"bytecode")
    (location / "link").symlink_to(os.path.relpath(victim, location))
    (location / ".vimectl" / "stage").mkdir(parents=True)
    document = {"action": "apply", "forward": True, "token": "0" * 32, "roots": [str(location)]}
    document |= {"moves": moves, "folders": folders}
    (location / ".vimectl" / "journal.json").write_text(json.dumps(document))
    before = snapshot(victim, location)
    code, text = patch(name)
    assert code == 1
    assert "this user did not begin" in " ".join(text.split())
    assert snapshot(victim, location) == before


@pytest.mark.parametrize("path", [".vimectl/journal.json", ".vimectl/ledger.json", "toy/both.py"])
def test_pipe_does_not_stop_a_command(location: Path, patch: Callable[..., Any], path: str) -> None:
    (location / path).unlink(missing_ok=True)
    (location / path).parent.mkdir(exist_ok=True)
    os.mkfifo(location / path)
    for name in ("status", "apply", "recover"):
        code, text = patch(name)
        assert code in (0, 1, 2), text
        assert "no file is in its place" in text or "not a regular file" in " ".join(text.split()), text


@pytest.mark.parametrize("path", [".vimectl/lock", ".vimectl/.gitignore", "toy_cpu-1.0.dist-info/RECORD"])
@pytest.mark.parametrize("kind", ["pipe", "link", "hard link"])
def test_odd_file_is_refused_by_apply(
    location: Path, tmp_path: Path, patch: Callable[..., Any], path: str, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes((location / path).read_bytes() if (location / path).exists() else b"keep\n")
    (location / path).unlink(missing_ok=True)
    (location / path).parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(location / path)
    elif kind == "link":
        (location / path).symlink_to(outside)
    else:
        os.link(outside, location / path)
    before = outside.read_bytes()
    code, text = patch("apply")
    if (kind, Path(path).name) in [
        ("hard link", "RECORD"),
        ("hard link", ".gitignore"),
        ("link", ".gitignore"),
    ]:
        assert code == 0, text  # it is replaced
    else:
        assert code in (2, 3), text
    if (kind, Path(path).name) == ("link", "RECORD"):
        assert f"{path}: is a symbolic link" in text
    assert outside.read_bytes() == before
