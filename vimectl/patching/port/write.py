"""Write a ported series: ordinary patches with blob ids, updated headers, and series.toml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from vimectl.patching import series as series_files
from vimectl.patching.blobs import blob_id
from vimectl.patching.git_diff import Changes, differ
from vimectl.patching.patchfile.tree import File
from vimectl.patching.port.carry import PatchPort
from vimectl.patching.port.one_file import FilePort
from vimectl.patching.series import Series

_FIELD = "X-Vimectl-Ported-From"


def write(
    directory: Path, series: Series, version: str, ports: Sequence[PatchPort], modes: Mapping[str, str]
) -> None:
    """Write the series for ``version`` into an empty directory.

    Args:
        series: the one that was ported; headers come from it.
        modes: git's mode of a file where it is not an ordinary one's, by path.

    Raises BadInput when what was written is no series, MachineLacks when there is no git.
    """
    today = datetime.now(timezone.utc).date().isoformat()
    kept = [port for port in ports if not port.left_out]
    with differ() as git:
        for port in kept:
            text = (series.directory / f"{port.id}.patch").read_bytes()
            changed = [file for file in port.files if file.before != file.after]
            head = _header(text, f"{series.package} {series.version}", today)
            (directory / f"{port.id}.patch").write_bytes(head + b"---\n" + git.diff(_changes(changed, modes)))
    (directory / "series.toml").write_text(_toml(series, version, kept, ports), encoding="utf-8")
    series_files.read(directory)


def _changes(ports: Sequence[FilePort], modes: Mapping[str, str]) -> Changes:
    return {
        port.path: (_file(port.path, port.before, modes), _file(port.path, port.after, modes))
        for port in ports
    }


def _file(path: str, content: bytes | None, modes: Mapping[str, str]) -> File | None:
    return None if content is None else File(content, modes.get(path, "100644"))


def _header(patch: bytes, origin: str, today: str) -> bytes:
    """Return the header of a patch, its date updated, with a line that says what it was ported from."""
    head = re.split(rb"^(?:---\n|diff --git |--- )", patch, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in head.splitlines(keepends=True) if not line.startswith(f"{_FIELD}:".encode())]
    fresh = f"Last-Update: {today}\n{_FIELD}: {origin}\n".encode()
    for number, line in enumerate(lines):
        if line.startswith(b"Last-Update:"):
            return b"".join([*lines[:number], fresh, *lines[number + 1 :]])
    return b"".join([*lines, fresh])


def _toml(series: Series, version: str, kept: Sequence[PatchPort], ports: Sequence[PatchPort]) -> str:
    lines = [
        f"# Patches for the released {series.package} {version}, in the order in which they apply;",
        f"# ported from those for {series.version}.",
        *(f'{key} = "{value}"' for key, value in _identity(series, version)),
    ]
    if not kept:
        lines.append("patch = []")
    unneeded = series.unneeded | {port.id[5:]: port.left_out for port in ports if port.left_out}
    for port in kept:  # two patches may be called the same
        unneeded.pop(port.id[5:], None)
    if unneeded:
        # A string of JSON is one of TOML.
        lines += ["", "[unneeded]", *(f"{slug} = {json.dumps(why)}" for slug, why in unneeded.items())]
    return "\n".join(lines) + "\n" + "".join(_patch(port) for port in kept)


def _identity(series: Series, version: str) -> list[tuple[str, str]]:
    return [("package", series.package), ("version", version), ("module", series.module)]


def _patch(port: PatchPort) -> str:
    text = f'\n[[patch]]\nid = "{port.id}"\n'
    for file in port.files:
        if file.before == file.after:
            continue
        text += f'\n[[patch.files]]\npath = "{file.path}"\n'
        for key, content in (("before", file.before), ("after", file.after)):
            text += f'{key} = "{blob_id(content)}"\n' if content is not None else ""
    return text
