"""Read the ``series`` file of quilt: patch files in the order in which they apply."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile.names import printable
from vimectl.patches.patchfile.reader import BOM, load

# A patch file and its strip level (None: not stated).
LeveledFile = tuple[Path, "int | None"]


def quilt_series(series: Path) -> list[LeveledFile]:
    """Return the files that a quilt series lists.

    Raises UsageError for options that quilt does not have, reversed patches, and files outside of the folder.
    """
    files: list[LeveledFile] = []
    for number, line in enumerate(load(series).removeprefix(BOM).split(b"\n"), 1):
        words = os.fsdecode(re.sub(rb"(?:^|[ \t])#.*", b"", line)).split()
        if not words:
            continue
        where, file, options = f"{series}:{number}", series.parent / words[0], " ".join(words[1:])
        level = re.fullmatch(r"(?:-p ?(\d{1,2}|ab))?", options)
        if not level:
            raise UsageError(
                f"{where}: {printable(options)}: only -p with a number is supported", "refresh the patch"
            )
        name = printable(words[0])
        try:
            inside = file.resolve().is_relative_to(series.parent.resolve())
            is_file = file.is_file()
        except (OSError, ValueError) as e:  # ValueError: a NUL in the name
            reason = e.strerror if isinstance(e, OSError) else e
            raise UsageError(f"{where}: {name}: {reason}", "correct the line") from e
        if not inside:
            raise UsageError(f"{where}: {name} is outside of the directory", "move the patch into it")
        if not is_file:
            raise UsageError(f"{where}: {name}: no such file", "add the patch, or remove the line")
        files.append((file, int(level[1].replace("ab", "1")) if level[1] else None))
    return files
