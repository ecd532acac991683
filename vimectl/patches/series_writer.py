"""Write a series directory: patches with blob ids, and the ``series.toml`` that ``series`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimectl.patches import series
from vimectl.patches.blobs import LINK
from vimectl.patches.git_commands import FileChanges, diff_writer


@dataclass(frozen=True)
class NewPatch:
    """A patch to write: its id, the header above its diff (DEP-3), and its files before and after."""

    id: str
    header: bytes
    changes: FileChanges


def write_series(
    directory: Path,
    comment: str,
    package: str,
    version: str,
    module: str,
    patches: Sequence[NewPatch],
    unneeded: Mapping[str, str] | None = None,
) -> None:
    """Write a series into an existing empty directory.

    ``unneeded`` gives, by the slug of a patch of another release, the reason why this release needs none.

    Raises:
        UsageError: a series cannot express these patches.
        MissingRequirement: git is not installed.
    """
    with diff_writer() as git:
        for patch in patches:
            text = patch.header + b"---\n" + git.diff(patch.changes)
            (directory / f"{patch.id}.patch").write_bytes(text)
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f'package = "{package}"', f'version = "{version}"', f'module = "{module}"']
    if not patches:
        lines.append("patch = []")
    if unneeded:
        # Every JSON string is a valid TOML string.
        lines += ["", "[unneeded]", *(f"{slug} = {json.dumps(reason)}" for slug, reason in unneeded.items())]
    for patch in patches:
        lines += ["", "[[patch]]", f'id = "{patch.id}"']
        for path, (before, after) in patch.changes.items():
            lines += ["", "[[patch.files]]", f'path = "{path}"']
            for key, file in (("before", before), ("after", after)):
                lines += [f'{key} = "{file.blob}"'] if file else []
            if LINK in {file.mode for file in (before, after) if file}:
                lines.append(f'mode = "{LINK}"')
            elif after and after.mode != (before.mode if before else "100644"):
                lines.append(f'mode = "{after.mode}"')
    (directory / "series.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    series.read(directory)
