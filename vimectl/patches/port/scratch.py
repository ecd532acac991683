"""Conflicts on disk: a folder in which somebody resolves them, and what was resolved there.

README.txt                  what to do
<patch id>/<path>           a file with git's conflict markers; edited, what the patch shall lead to
<patch id>/DROP             made by hand: leave this patch out; the text says why
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from vime_runtime.spec.errors import UsageError

from vimectl.patches.port.port_file import FilePort
from vimectl.patches.port.three_way import marked_line

README = "README.txt"
DROP = "DROP"


class _Ported(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def files(self) -> tuple[FilePort, ...]: ...


class Resolved:
    """What is in such a folder; nothing, without one. Raises UsageError when there is no such folder."""

    def __init__(self, directory: Path | None) -> None:
        if directory and not (directory / README).is_file():
            raise UsageError(
                f"{directory}: no folder that vimectl patch port made for conflicts",
                "without --resolved the conflicts are written anew",
            )
        self._directory = directory

    def dropped(self, patch: str) -> str:
        """Return why a patch shall be left out; "" when it shall not."""
        path = self._directory / patch / DROP if self._directory else None
        if path is None or not path.is_file():
            return ""
        return path.read_text(encoding="utf-8", errors="replace").strip() or "left out by hand"

    def file(self, patch: str, path: str) -> bytes | None:
        """Return what was made of a file, None without one. Raises UsageError while it has markers."""
        place = self._directory / patch / path if self._directory else None
        if place is None or not place.is_file():
            return None
        content = place.read_bytes()
        if line := marked_line(content):
            raise UsageError(f"{place}:{line}: still a conflict marker", f"see {self._directory}/{README}")
        return content

    def others(self, patch: str, known: set[str]) -> list[str]:
        """Return the paths for which a patch has files besides ``known``."""
        root = self._directory / patch if self._directory else None
        if root is None or not root.is_dir():
            return []
        found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return sorted(set(found) - known - {DROP})


def write(directory: Path, ports: Sequence[_Ported], title: str, again: str) -> None:
    """Write what is to be resolved. A file that is there already stays: somebody may have edited it.

    Args:
        again: the command that goes on.
    """
    lines = []
    for patch, file in _conflicts(ports):
        place = directory / patch / file.path
        lines.append(f"{patch}/{file.path}\n    {file.note}\n")
        if file.after is not None and not place.exists():
            _write(place, file.after)
        else:
            (directory / patch).mkdir(parents=True, exist_ok=True)
    _write(directory / README, _README.format(title=title, files="".join(lines), again=again).encode())


def _conflicts(ports: Sequence[_Ported]) -> Iterator[tuple[str, FilePort]]:
    for port in ports:
        for file in port.files:
            if file.result == "conflict":
                yield port.id, file


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


_README = """\
{title}: what git could not merge by itself.

{files}
Between <<<<<<< and ||||||| stands what the new release has, between ||||||| and ======= what the old one had,
between ======= and >>>>>>> what the patch made of that.

1. Edit each of these files into what the patch shall lead to in the new release, and remove the markers.
   A file that a patch deletes is emptied. A file that went elsewhere is put at its new path.
2. To leave a patch out, write the reason into a file called DROP in its folder.
3. Then: {again}
"""
