"""Make releases of a small package as wheels and source archives, and series with git."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

from vimectl.patches import series
from vimectl.patches.blobs import blob_id, content_at
from vimectl.patches.series import Series

Files = dict[str, "bytes | None"]


def lines(*names: str) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def write_wheel(folder: Path, version: str, files: Files) -> Path:
    path = folder / f"toy-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def write_sdist(folder: Path, version: str, files: Files) -> Path:
    path = folder / f"toy-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            if content is not None:
                member = tarfile.TarInfo(f"toy-{version}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def git(directory: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", directory, *arguments], check=True, capture_output=True).stdout


def put(directory: Path, files: Files) -> None:
    for name, content in files.items():
        place = directory / name
        if content is None:
            place.unlink(missing_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


def write_series(folder: Path, release: Files, *patches: Files) -> Series:
    """Write the series of toy 1.0 whose patches, ``0001-p`` and on, turn files into the contents given."""
    repository, directory = folder / "history", folder / "toy-1.0"
    repository.mkdir()
    directory.mkdir()
    git(repository, "init", "-q")
    put(repository, release)
    text = 'package = "toy"\nversion = "1.0"\nmodule = "toy"\n'
    now = dict(release)
    for number, files in enumerate(patches, 1):
        trees = []
        for stage in ({}, files):
            put(repository, stage)
            git(repository, "add", "-A")
            trees.append(git(repository, "write-tree").decode().strip())
        diff = git(repository, "diff", "--full-index", "--no-renames", "--binary", *trees)
        header = b"Description: toy\nLast-Update: 2020-01-01\n---\n"
        (directory / f"{number:04}-p.patch").write_bytes(header + diff)
        text += f'[[patch]]\nid = "{number:04}-p"\n'
        for name, content in files.items():
            text += f'[[patch.files]]\npath = "{name}"\n'
            for key, data in (("before", now.get(name)), ("after", content)):
                text += f'{key} = "{blob_id(data)}"\n' if data is not None else ""
        now |= files
    (directory / "series.toml").write_text(text)
    return series.read(directory)


def applied(one: Series, release: Files, folder: Path) -> Files:
    """Apply a series to a release with git only, and return the files that it changes."""
    folder.mkdir()
    put(folder, release)
    git(folder, "init", "-q")
    for patch in one.patch:
        git(folder, "apply", "--whitespace=nowarn", str((one.directory / f"{patch.id}.patch").absolute()))
    return {name: content_at(folder / name) for name in one.chains}
