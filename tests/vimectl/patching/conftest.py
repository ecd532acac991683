"""A toy package with a series of two patches, made by real git, and a place where it is unpacked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vimectl.patching import series
from vimectl.patching.record import update
from vimectl.patching.series import Series
from vimectl.patching.target import Target, at

# "both.py" is touched by both patches and "crlf.py" has foreign line ends and no newline at its end.
STAGES = [
    {"toy/__init__.py": b"", "toy/both.py": b"a\nb\nc\nd\n", "toy/crlf.py": b"one\r\ntwo\xff\r\nthree"},
    {"toy/both.py": b"a\nB\nc\nd\n", "toy/new.py": b"made by a patch\n"},
    {"toy/both.py": b"a\nB\nc\nD\n", "toy/crlf.py": b"one\r\nTWO\xff\r\nthree"},
]
IDS = ["0001-first", "0002-second"]


def git(directory: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", directory, *arguments], check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def toy_series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """The series, as this project keeps one: series.toml and ordinary `git diff` patches."""
    repository, directory = tmp_path_factory.mktemp("history"), tmp_path_factory.mktemp("series")
    git(repository, "init", "-q")
    toml = 'package = "toy"\nversion = "1.0"\nmodule = "toy"\n'
    for number, files in enumerate(STAGES):
        for path, content in files.items():
            (repository / path).parent.mkdir(exist_ok=True)
            (repository / path).write_bytes(content)
        git(repository, "add", "-A")
        git(repository, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "x")
        if number == 0:
            continue
        diff = git(repository, "diff", "--full-index", "--no-renames", "HEAD~", "HEAD")
        (directory / f"{IDS[number - 1]}.patch").write_bytes(b"Description: toy\n---\n" + diff)
        toml += f'[[patch]]\nid = "{IDS[number - 1]}"\n'
        for line in git(repository, "diff", "--raw", "--no-abbrev", "HEAD~", "HEAD").decode().splitlines():
            meta, path = line.split("\t")
            before, after = meta.split()[2:4]
            toml += f'[[patch.files]]\npath = "{path}"\nafter = "{after}"\n'
            toml += f'before = "{before}"\n' if before.strip("0") else ""
    (directory / "series.toml").write_text(toml)
    return series.read(directory)


def _unpack(location: Path) -> Path:
    for path, content in STAGES[0].items():
        (location / path).parent.mkdir(exist_ok=True, parents=True)
        (location / path).write_bytes(content)
    metadata = location / "toy_cpu-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-cpu\nVersion: 1.0\n")
    (metadata / "INSTALLER").write_text("pip\n")
    lines = b"".join(f"{path},sha256=x,0\n".encode() for path in STAGES[0])
    (metadata / "RECORD").write_bytes(update(lines, STAGES[0]) + b"toy_cpu-1.0.dist-info/RECORD,,\n")
    return location


def _snapshot(*locations: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for location in locations:
        for path in sorted(location.rglob("*")):
            content = b"" if path.is_dir() else path.read_bytes()
            found[str(path)] = (path.lstat().st_mode, content)
    return found


@pytest.fixture
def unpack() -> Callable[[Path], Path]:
    """Writes the toy release as an installer leaves it: a distribution ``toy-cpu``, with a true RECORD."""
    return _unpack


@pytest.fixture
def snapshot() -> Callable[..., dict[str, tuple[int, bytes]]]:
    """Everything in some directories: mode and content by path, empty folders included."""
    return _snapshot


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return _unpack(tmp_path / "site-packages")


@pytest.fixture
def target(location: Path) -> Target:
    found = at(location, "toy", "toy")
    assert found
    return found
