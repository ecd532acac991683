"""Write a series directory: patches with blob ids, and the ``series.toml`` that ``series`` reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement

from vimectl.patches import series
from vimectl.patches.blobs import LINK
from vimectl.patches.git_commands import FileChanges, diff_writer


@dataclass(frozen=True)
class NewPatch:
    """A patch to write: its id, the header above its diff (DEP-3), and its files before and after."""

    id: str
    header: bytes
    changes: FileChanges


@contextmanager
def _new_directory(out: Path) -> Iterator[Path]:
    """Yield a directory that becomes ``out``, which is new or empty. An error leaves nothing."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(out)
    except OSError as e:
        raise MissingRequirement(f"{out} cannot be written: {e.strerror}", "name another --out DIR") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_series(
    out: Path,
    comment: str,
    package: str,
    version: str,
    module: str,
    patches: Sequence[NewPatch],
    unneeded: Mapping[str, str] | None = None,
) -> None:
    """Write a series into a new or empty directory, completely or not at all.

    ``unneeded`` gives, by the slug of a patch of another release, the reason why this release needs none.

    Raises:
        UsageError: a series cannot express these patches.
        MissingRequirement: git is not installed, or the directory cannot be written.
    """
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
    with _new_directory(out) as directory, diff_writer() as git:
        for patch in patches:
            text = patch.header + b"---\n" + git.diff(patch.changes)
            (directory / f"{patch.id}.patch").write_bytes(text)
        (directory / "series.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        series.read(directory)
