"""Make source archives of a small package, and apply its series with git."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from harness.git import git
from vimectl.patches.blobs import content_at
from vimectl.patches.series import Series

Files = dict[str, "bytes | None"]


def lines(*names: str) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def write_sdist(folder: Path, version: str, files: Files) -> Path:
    path = folder / f"toy-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            if content is not None:
                member = tarfile.TarInfo(f"toy-{version}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def put(directory: Path, files: Files) -> None:
    for name, content in files.items():
        place = directory / name
        if content is None:
            place.unlink(missing_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


def applied(one: Series, release: Files, folder: Path) -> Files:
    """Apply a series to a release with git only, and return the files that it changes."""
    folder.mkdir()
    put(folder, release)
    git(folder, "init", "-q")
    for patch in one.patch:
        git(folder, "apply", "--whitespace=nowarn", str((one.directory / f"{patch.id}.patch").absolute()))
    return {name: content_at(folder / name) for name in one.chains}
