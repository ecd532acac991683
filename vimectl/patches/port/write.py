"""Write a ported series: ordinary patches with blob ids, updated headers, and series.toml."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from vimectl.patches import series as series_files
from vimectl.patches import series_text
from vimectl.patches.git_diff import Changes, differ
from vimectl.patches.patchfile.tree import File
from vimectl.patches.port.rebase import PatchPort
from vimectl.patches.series import Series

_FIELD = "X-Vimectl-Ported-From"


def write(directory: Path, series: Series, version: str, ports: Sequence[PatchPort]) -> None:
    """Write the series for ``version`` into an empty directory.

    ``series`` is the one that was ported; headers come from it.
    Raises UsageError when what was written is no series, MissingRequirement when there is no git.
    """
    today = datetime.now(timezone.utc).date().isoformat()
    kept = [(port.id, _changes(port)) for port in ports if not port.left_out]
    with differ() as git:
        for patch, changes in kept:
            text = (series.directory / f"{patch}.patch").read_bytes()
            head = _header(text, f"{series.package} {series.version}", today)
            (directory / f"{patch}.patch").write_bytes(head + b"---\n" + git.diff(changes))
    unneeded = series.unneeded | {port.id[5:]: port.left_out for port in ports if port.left_out}
    for patch, _ in kept:  # two patches may be called the same
        unneeded.pop(patch[5:], None)
    comment = (
        f"Patches for the released {series.package} {version}, in the order in which they apply;\n"
        f"ported from those for {series.version}."
    )
    toml = series_text.dump(comment, series.package, version, series.module, kept, unneeded)
    (directory / "series.toml").write_text(toml, encoding="utf-8")
    series_files.read(directory)


def _changes(port: PatchPort) -> Changes:
    """What is left to do: the files that the release has as the patch makes them are not."""
    states = {
        file.path: tuple(
            None if content is None else File(content, mode)
            for content, mode in zip((file.before, file.after), file.modes, strict=True)
        )
        for file in port.files
    }
    return {path: (before, after) for path, (before, after) in states.items() if before != after}


def _header(patch: bytes, origin: str, today: str) -> bytes:
    """Return the header of a patch, its date updated, with a line that says what it was ported from."""
    head = re.split(rb"^(?:---\n|diff --git |--- )", patch, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in head.splitlines(keepends=True) if not line.startswith(f"{_FIELD}:".encode())]
    fresh = f"Last-Update: {today}\n{_FIELD}: {origin}\n".encode()
    for number, line in enumerate(lines):
        if line.startswith(b"Last-Update:"):
            return b"".join([*lines[:number], fresh, *lines[number + 1 :]])
    return b"".join([*lines, fresh])
