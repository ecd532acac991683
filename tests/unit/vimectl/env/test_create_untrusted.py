"""Creating an environment where another user, or a link, is in the way: nothing else is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, UsageError

from harness.tiny_stack import lock_of, tiny_stack, tiny_wheel
from vimectl.env import create
from vimectl.env.create import STATE_FILE, WORK_DIR, create_environment
from vimectl.util.directory_lock import check_in_place
from vimectl.util.phase_progress import PhaseProgress

MARKER = json.dumps({"stack": "tiny", "lock": "0", "phase": "creating"})


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return lock_of(tmp_path / "lock.txt", [tiny_wheel(tmp_path / "wheels", "pip", "25.0")])


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that must not change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def link_to_directory(directory: Path, outside: Path) -> None:
    directory.symlink_to(outside)


def link_to_own_directory(directory: Path, outside: Path) -> None:
    (directory.parent / "empty").mkdir()
    directory.symlink_to("empty")


def writable_by_all(directory: Path, outside: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)


def of_another_user(directory: Path, outside: Path) -> None:
    directory.mkdir()
    os.chown(directory, 1, 1)


def with_marker(write: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    def make(directory: Path, outside: Path) -> None:
        directory.mkdir()
        (directory / "mine").write_text("mine")
        write(directory, outside)

    return make


def marker_of_another_user(directory: Path, outside: Path) -> None:
    (directory / STATE_FILE).write_text(MARKER)
    os.chown(directory / STATE_FILE, 1, 1)


def linked_marker(directory: Path, outside: Path) -> None:
    (outside / "marker").write_text(MARKER)
    (directory / STATE_FILE).symlink_to(outside / "marker")


def linked_downloads(directory: Path, outside: Path) -> None:
    (directory / STATE_FILE).write_text(MARKER)
    (directory / WORK_DIR).symlink_to(outside)


ROOT = pytest.mark.needs("root")
REFUSED = [
    pytest.param(link_to_directory, "is a link", id="link"),
    pytest.param(link_to_own_directory, "is a link", id="link to an empty directory"),
    pytest.param(writable_by_all, "every user can write", id="writable by all"),
    pytest.param(of_another_user, "belongs to another user", id="of another user", marks=ROOT),
    pytest.param(
        with_marker(marker_of_another_user), "of another user", id="marker of another user", marks=ROOT
    ),
    pytest.param(with_marker(linked_marker), "symbolic link", id="linked marker"),
    pytest.param(with_marker(linked_downloads), "not a folder", id="linked downloads"),
    pytest.param(
        with_marker(lambda directory, _: os.mkfifo(directory / STATE_FILE)), "regular", id="named pipe"
    ),
    pytest.param(
        with_marker(lambda directory, _: (directory / STATE_FILE).write_text("[]")),
        "not the state",
        id="marker of something else",
    ),
    pytest.param(
        with_marker(lambda directory, _: (directory / STATE_FILE).write_text("[" * 100_000)),
        "not the state",
        id="marker nested deeply",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_directory_is_refused_and_unchanged(
    make: Callable[[Path, Path], None], message: str, tmp_path: Path, lock: Path, outside: Path
) -> None:
    directory = tmp_path / "env"
    make(directory, outside)
    names, before = sorted(os.listdir(directory)), contents(outside)
    with pytest.raises(UsageError, match=message):
        create_environment(directory, tiny_stack(), lock, lambda now: None)
    assert sorted(os.listdir(directory)) == names
    assert contents(outside) == before


@pytest.mark.parametrize("phase", ["creating a virtual environment", "checking"])
def test_directory_that_is_swapped(
    phase: str, tmp_path: Path, lock: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create.UvInstaller, "make_environment", _bare_environment)
    before = contents(outside)

    def report(now: PhaseProgress) -> None:
        if (
            now.phase.startswith(phase)
            and (tmp_path / "env").is_dir()
            and not (tmp_path / "env").is_symlink()
        ):
            (tmp_path / "env").rename(tmp_path / "moved")
            (tmp_path / "env").symlink_to(outside)

    with pytest.raises(CheckFailed, match=r"was moved or replaced|has no lib"):
        create_environment(tmp_path / "env", tiny_stack(), lock, report)
    assert contents(outside) == before


def _bare_environment(uv: create.UvInstaller, interpreter: Path) -> None:
    """Make the smallest environment that looks complete; its interpreter does nothing."""
    uv.report(PhaseProgress("creating a virtual environment"))
    check_in_place(uv.directory, uv.lock_fd)
    directory = uv.directory
    (directory / "bin").mkdir()
    (directory / "lib" / "python3.9" / "site-packages").mkdir(parents=True)
    (directory / "bin" / "python").symlink_to("/bin/true")
