"""Write a ported series: ordinary patches with blob ids, updated headers, and series.toml."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from vimectl.patching import series as series_files
from vimectl.patching.blobs import blob_id
from vimectl.patching.port.carry import PatchPort
from vimectl.patching.port.one_file import FilePort
from vimectl.patching.port.three_way import git
from vimectl.patching.series import Series

_FIELD = "X-Vimectl-Ported-From"
_DIFF = [
    "git",
    "diff",
    *("--full-index", "--no-renames", "--binary", "--no-ext-diff", "--no-textconv", "--no-color"),
    *("--diff-algorithm=myers", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/"),
]


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
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        repository = _Repository(Path(scratch))
        for port in kept:
            text = (series.directory / f"{port.id}.patch").read_bytes()
            changed = [file for file in port.files if file.before != file.after]
            head = _header(text, f"{series.package} {series.version}", today)
            (directory / f"{port.id}.patch").write_bytes(head + b"---\n" + repository.diff(changed, modes))
    (directory / "series.toml").write_text(_toml(series, version, kept, ports), encoding="utf-8")
    series_files.read(directory)


class _Repository:
    """An empty repository, in which git itself writes the diffs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._git = git(directory)
        self._git.execute(["git", "init", "-q"])

    def diff(self, files: Sequence[FilePort], modes: Mapping[str, str]) -> bytes:
        """Return what changes the files from before to after."""
        trees = []
        for side in ("before", "after"):
            for file in files:
                self._put(file.path, getattr(file, side), modes.get(file.path, "100644"))
            self._git.execute(["git", "-c", "core.autocrlf=false", "add", "--all", "--force"])
            trees.append(str(self._git.execute(["git", "write-tree"])))
        text = self._git.execute([*_DIFF, *trees], stdout_as_string=False, strip_newline_in_stdout=False)
        return bytes(text)

    def _put(self, path: str, content: bytes | None, mode: str) -> None:
        place = self._directory / path
        place.unlink(missing_ok=True)
        if content is None:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if mode == "120000":
            place.symlink_to(content.decode("utf-8", "surrogateescape"))
        else:
            place.write_bytes(content)
            place.chmod(int(mode[-3:], 8))


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
