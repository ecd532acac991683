"""Write series directories: git writes the diffs, with full blob ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimectl.patches.git_commands import FileChanges, temporary_repository
from vimectl.patches.series import ABOUT, ORDER, Patch, Series, file_name, parse_patch
from vimectl.util.new_folder import new_folder


@dataclass(frozen=True)
class NewPatch:
    """A patch to write: its id, the header above its diff (DEP-3), and its files before and after."""

    id: str
    header: bytes
    changes: FileChanges


def render(patches: Sequence[NewPatch]) -> list[Patch]:
    """Return the patches of a series with the diffs that git writes.

    Raises UsageError when a series cannot express a change, MissingRequirement when git is not installed.
    """
    with temporary_repository() as git:
        return [parse_patch(one.id, one.header + b"---\n" + git.diff(one.changes)) for one in patches]


def about(
    package: str,
    version: str = "",
    commit: str = "",
    module: str = "",
    unneeded: Mapping[str, str] | None = None,
) -> bytes:
    """Return the text of a ``series.toml``; ``series.Series`` explains the values."""
    values = {"package": package, "version": version, "commit": commit, "module": module}
    # Every JSON string is a valid TOML string.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value]
    if unneeded:
        reasons = (f"{json.dumps(slug)} = {json.dumps(reason)}" for slug, reason in unneeded.items())
        lines += ["", "[unneeded]", *reasons]
    return ("\n".join(lines) + "\n").encode()


def order(patch_ids: Sequence[str], comment: str = "") -> bytes:
    """Return the text of a quilt ``series`` file."""
    lines = [f"# {line}" for line in comment.splitlines()] + [file_name(one) for one in patch_ids]
    return "".join(f"{line}\n" for line in lines).encode()


def write_series(
    out: Path,
    comment: str,
    package: str,
    version: str,
    module: str,
    patches: Sequence[NewPatch],
    unneeded: Mapping[str, str] | None = None,
    commit: str = "",
) -> None:
    """Write a series into a new or empty directory, completely or not at all.

    ``unneeded`` gives, by the slug of a patch of another release, the reason why this release needs none.

    Raises:
        UsageError: a series cannot express these patches, or the directory exists.
        MissingRequirement: git is not installed, or the directory cannot be written.
    """
    rendered = render(patches)
    files = {file_name(one.id): one.text for one in rendered}
    files[ORDER] = order([one.id for one in rendered], comment)
    files[ABOUT] = about(package, version, commit, module, unneeded)
    Series(str(out), package, tuple(rendered)).checked()
    with new_folder(out) as write:
        for name, text in files.items():
            write(name, text)
