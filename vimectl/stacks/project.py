"""Edit a project file, keeping its comments and order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vimectl.stacks.catalog import is_series_directory, is_stack_path, load_summary


def add_series(
    file: Path,
    package: str,
    version: str | None,
    directory: Path,
    extends: str | None = None,
    target: Path | None = None,
) -> bytes:
    """Return the text of a project file with a series on top of those that it has on a package.

    A package that the file does not name keeps the series of what the file extends below. The file need not
    exist: its text is then a minimal one, which extends ``extends``.

    Args:
        version: the version of the package, stated unless the file or what it extends has one.
        directory: the directory of the series, written relative to the file.
        target: the directory that holds the package, stated unless the file or what it extends has one.

    Raises:
        UsageError: the file is not valid.
    """
    import tomlkit  # slow to import, and no other command edits a file

    document: Any = tomlkit.document()
    known = None
    if file.is_file():
        known = load_summary(str(file))
        document = tomlkit.parse(file.read_text(encoding="utf-8"))
    else:
        document.add(tomlkit.comment("The patches of this project, for `vimectl patch`."))
        if extends:
            known = load_summary(extends)
            document["extends"] = relative(file, extends) if is_stack_path(extends) else extends
    entries = known.patches.get(package, ()) if known else ()
    if str(_real(directory)) in entries:
        return tomlkit.dumps(document).encode()
    if version and (known is None or package not in known.packages):
        _add(document.setdefault("packages", tomlkit.table()), package, version)
    patches = document.setdefault("patches", tomlkit.table())
    if package not in patches:
        _add(patches, package, [relative(file, one) if is_series_directory(one) else one for one in entries])
    patches[package].append(relative(file, str(directory)))
    if target and (known is None or package not in known.targets):
        _add(document.setdefault("targets", tomlkit.table()), package, relative(file, str(target)))
    return tomlkit.dumps(document).encode()


def _add(table: Any, key: str, value: object) -> None:
    """Add a key below the others of a table, above the comments before the next table."""
    body = table.value.body
    last = next((index for index in reversed(range(len(body))) if body[index][0] is not None), -1)
    after = body[last + 1 :]
    del body[last + 1 :]
    table.append(key, value)
    body.extend(after)


def relative(file: Path, path: str) -> str:
    """Return a path as a project file states it: relative to the file, and never like a version."""
    found = os.path.relpath(_real(Path(path)), _real(file).parent)
    return found if is_series_directory(found) else f"./{found}"


def _real(path: Path) -> Path:
    """Return a path without symbolic links above it."""
    absolute = path.absolute()
    return absolute.parent.resolve() / absolute.name
