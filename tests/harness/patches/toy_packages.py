"""Make small packages and their series."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from harness.patches.stored_content import content_at
from vimectl.patches import series
from vimectl.patches.blobs import git_mode
from vimectl.patches.distribution import update_record
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.series import Series
from vimectl.patches.series_writer import NewPatch, write_series

# "both.py" is touched by both patches and "crlf.py" has foreign line ends and no newline at its end.
STAGES = [
    {"toy/__init__.py": b"", "toy/both.py": b"a\nb\nc\nd\n", "toy/crlf.py": b"one\r\ntwo\xff\r\nthree"},
    {"toy/both.py": b"a\nB\nc\nd\n", "toy/new.py": b"made by a patch\n"},
    {"toy/both.py": b"a\nB\nc\nD\n", "toy/crlf.py": b"one\r\nTWO\xff\r\nthree"},
]
# A tree: (mode, content) by path. The two packages have every change that a patch can make.
Tree = dict[str, tuple[int, bytes]]
LINK = 0o120777  # its content is its target
HEADER = b"Description: toy\nLast-Update: 2020-01-01\n"


def rich(package: str) -> list[Tree]:
    """Return the release of a package, and its content after each of two patches."""
    name = package
    release: Tree = {
        f"{name}/__init__.py": (0o644, b"import os\n"),
        f"{name}/both.py": (0o640, b"a\nb\nc\nd\n"),
        f"{name}/crlf.py": (0o644, b"one\r\ntwo\xff\r\nthree"),
        f"{name}/gone.py": (0o750, b"unwanted\n"),
        f"{name}/lone/gone.py": (0o600, b"the only one in its folder"),
        f"{name}/old_name.py": (0o644, b"".join(b"line %d\n" % n for n in range(20))),
        f"{name}/run.sh": (0o644, b"#!/bin/sh\n"),
        f"{name}/emptied.py": (0o644, b"content\n"),
        f"{name}/filled.py": (0o644, b""),
        f"{name}/form_feed.txt": (0o644, b"a\x0cb\nc\x85\n"),
    }
    first = dict(release)
    del first[f"{name}/gone.py"], first[f"{name}/lone/gone.py"]
    first |= {
        f"{name}/both.py": (0o640, b"a\nB\nc\nd\n"),
        f"{name}/fresh/deep/new.py": (0o644, b"made by a patch\n"),
        f"{name}/fresh/tool": (0o755, b"#!/bin/sh\nexit\n"),
        f"{name}/empty.py": (0o644, b""),
        f"{name}/run.sh": (0o755, b"#!/bin/sh\n"),
        f"{name}/emptied.py": (0o644, b""),
        f"{name}/filled.py": (0o644, b"content\n"),
        f"{name}/form_feed.txt": (0o644, b"a\x0cB\nc\x85\n"),
    }
    second = dict(first)
    first_name = second.pop(f"{name}/old_name.py")[1]
    second |= {
        f"{name}/both.py": (0o640, b"a\nB\nc\nD\n"),
        f"{name}/crlf.py": (0o644, b"one\r\nTWO\xff\r\nthree"),
        f"{name}/new_name.py": (0o644, first_name.replace(b"line 7\n", b"LINE 7\n")),
    }
    return [release, first, second]


def lay(directory: Path, files: Tree) -> None:
    """Write a tree."""
    for path, (mode, content) in files.items():
        (directory / path).parent.mkdir(exist_ok=True, parents=True)
        if mode == LINK:
            (directory / path).symlink_to(content.decode())
            continue
        (directory / path).write_bytes(content)
        (directory / path).chmod(mode)


def build_series(
    package: str, stages: list[Tree], directory: Path, slugs: Sequence[str] = ("first", "second")
) -> Series:
    """Write a series for version 1.0 with a patch from each of these trees to the next."""
    files = [
        {path: GitFile(content, git_mode(mode)) for path, (mode, content) in stage.items()}
        for stage in stages
    ]
    patches = []
    for number, (slug, (old, new)) in enumerate(zip(slugs, pairwise(files), strict=False), 1):
        paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
        changes = {path: (old.get(path), new.get(path)) for path in paths}
        patches.append(NewPatch(f"{number:04}-{slug}", HEADER, changes))
    directory.mkdir(exist_ok=True)
    write_series(directory, "toy", package, "1.0", package, patches)
    return series.read(directory)


def install(location: Path, package: str, files: Tree) -> Path:
    """Install a release as pip does: a distribution of another name, with a correct RECORD."""
    lay(location, files)
    metadata = location / f"{package}_cpu-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}-cpu\nVersion: 1.0\n")
    (metadata / "INSTALLER").write_text("pip\n")
    lines = update_record(b"", {path: content for path, (_, content) in files.items()})
    (metadata / "RECORD").write_bytes(lines + f"{metadata.name}/RECORD,,\n".encode())
    return location


def unpack(location: Path) -> Path:
    """Install the toy release as a distribution ``toy-cpu`` with a RECORD."""
    return install(location, "toy", {path: (0o644, content) for path, content in STAGES[0].items()})


def snapshot(*locations: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of everything in some directories by path, also of empty folders."""
    found = {}
    for location in locations:
        for path in sorted(location.rglob("*")):
            if ".git" in path.parts:
                continue
            content = b"" if path.is_dir() else content_at(path) or b""
            found[str(path)] = (path.lstat().st_mode, content)
    return found
