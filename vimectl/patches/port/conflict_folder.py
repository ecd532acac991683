"""Write conflicts to a folder for the user to resolve, and read the resolutions.

README.txt                  instructions
<patch id>/<path>           a file with git's conflict markers, to be edited into the patched file
<patch id>/DROP             made by the user: leave this patch out; the text is the reason
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.port.auto_resolve import first_marker
from vimectl.patches.port.port_file import FilePort

README = "README.txt"
DROP = "DROP"


class Resolutions:
    """The user's resolutions in such a folder; none without one. Raises UsageError for any other folder."""

    def __init__(self, directory: Path | None) -> None:
        if directory and not (directory / README).is_file():
            raise UsageError(
                f"{directory}: not a folder that vimectl patch port made for conflicts",
                "without --resolved the conflicts are written again",
            )
        self._directory = directory

    def drop_reason(self, patch: str) -> str:
        """Return why a patch is to be left out; "" if it is not."""
        path = self._directory / patch / DROP if self._directory else None
        if path is None or not path.is_file():
            return ""
        return path.read_text(encoding="utf-8", errors="replace").strip() or "left out by hand"

    def file(self, patch: str, path: str) -> bytes | None:
        """Return the resolved file, or None. Raises UsageError while it has conflict markers."""
        full_path = self._directory / patch / path if self._directory else None
        if full_path is None or not full_path.is_file():
            return None
        content = full_path.read_bytes()
        if line := first_marker(content):
            raise UsageError(
                f"{full_path}:{line}: still a conflict marker", f"see {self._directory}/{README}"
            )
        return content

    def other_paths(self, patch: str, known: set[str]) -> list[str]:
        """Return the paths of a patch's files except ``known``."""
        root = self._directory / patch if self._directory else None
        if root is None or not root.is_dir():
            return []
        found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return sorted(set(found) - known - {DROP})


def write_conflicts(
    directory: Path, conflicts: Iterable[tuple[str, FilePort]], title: str, command: str
) -> None:
    """Write the conflicts, each with its patch id. Existing files are kept: the user may have edited them.

    ``command`` is the command that continues after the user's edits.
    """
    lines = []
    for patch, file in conflicts:
        full_path = directory / patch / file.path
        lines.append(f"{patch}/{file.path}\n    {file.note}\n")
        if file.after is not None and not full_path.exists():
            _write(full_path, file.after)
        else:
            (directory / patch).mkdir(parents=True, exist_ok=True)
    text = _README.format(title=title, files="".join(lines), command=command)
    _write(directory / README, text.encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(content)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


_README = """\
{title}: conflicts that git could not merge.

{files}
The lines between <<<<<<< and ||||||| are those of the new release, between ||||||| and ======= those of the
old one, and between ======= and >>>>>>> what the patch changed them into.

1. Edit each of these files into the patched file for the new release, and remove the markers.
   Empty a file that a patch deletes. Put a file that was moved at its new path.
2. To leave a patch out, write the reason into a file called DROP in its folder.
3. Then: {command}
"""
