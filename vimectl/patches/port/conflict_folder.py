"""Write conflicts to a folder for the user to resolve, and read the resolutions.

README.txt                  instructions
<patch id>/<path>           a file with git's conflict markers, to be edited into the patched file
<patch id>/DROP             made by the user: leave this patch out; the text is the reason
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.atomic_io import write_bytes_atomically
from vime_runtime.spec.errors import UsageError

from vimectl.patches.port.auto_resolve import first_marker
from vimectl.patches.port.port_file import PatchPort

README = "README.txt"
_DROP = "DROP"
_TEXT = """\
{title}: conflicts that git could not merge.

{files}
The lines between <<<<<<< and ||||||| are those of the new release, between ||||||| and ======= those of the
old one, and between ======= and >>>>>>> what the patch changed them into.

1. Edit each of these files into the patched file for the new release, and remove the markers.
   Empty a file that a patch deletes. Put a file that was moved at its new path.
2. To leave a patch out, write the reason into a file called DROP in its folder.
3. Then: {command}
"""


@dataclass(frozen=True)
class Resolutions:
    """The user's resolutions in such a folder; none if it does not exist."""

    directory: Path

    def drop_reason(self, patch: str) -> str:
        """Return why a patch is to be left out; "" if it is not."""
        path = self.directory / patch / _DROP
        if not path.is_file():
            return ""
        return path.read_text(encoding="utf-8", errors="replace").strip() or "left out by hand"

    def file(self, patch: str, path: str) -> bytes | None:
        """Return the resolved file, or None. Raises UsageError while it has conflict markers."""
        full_path = self.directory / patch / path
        if not full_path.is_file():
            return None
        content = full_path.read_bytes()
        if line := first_marker(content):
            message = f"{full_path}:{line}: still a conflict marker"
            raise UsageError(message, f"see {self.directory}/{README}")
        return content

    def moved_to(self, patch: str, known: Iterable[str]) -> str | None:
        """Return the path of the one resolved file of a patch that is not in ``known``, or None."""
        root = self.directory / patch
        found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        other = found.difference(known, [_DROP])
        return other.pop() if len(other) == 1 else None


def write_conflicts(directory: Path, patches: Iterable[PatchPort], title: str, command: str) -> None:
    """Write the conflicts of patches. Existing files are kept: the user may have edited them.

    ``command`` is the command that continues after the user's edits.
    """
    lines = []
    for patch, file in ((one, file) for one in patches for file in one.files):
        if file.result == "conflict":
            full_path = directory / patch.id / file.path
            lines.append(f"{patch.id}/{file.path}\n    {file.note}\n")
            (directory / patch.id).mkdir(parents=True, exist_ok=True)
            if file.after is not None and not full_path.exists():
                full_path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes_atomically(full_path, file.after.content)
    text = _TEXT.format(title=title, files="".join(lines), command=command)
    write_bytes_atomically(directory / README, text.encode())
