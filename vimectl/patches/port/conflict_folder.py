"""Write conflicts to a folder for the user to resolve, and read the resolutions.

README.txt                  instructions
<patch id>/<path>           a file with git's conflict markers, to be edited into the patched file
<patch id>/DROP             made by the user: leave this patch out; the text is the reason
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile.names import parent_folders
from vimectl.patches.port.auto_resolve import first_marker
from vimectl.patches.port.port_file import PatchPort
from vimectl.util.directory_tree import DirectoryTree

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
        reason = self._read(f"{patch}/{_DROP}")
        return "" if reason is None else reason.decode("utf-8", "replace").strip() or "left out by hand"

    def file(self, patch: str, path: str) -> bytes | None:
        """Return the resolved file, or None. Raises UsageError while it has conflict markers."""
        content = self._read(f"{patch}/{path}")
        if content is not None and (line := first_marker(content)):
            message = f"{self.directory / patch / path}:{line}: still a conflict marker"
            raise UsageError(message, f"see {self.directory}/{README}")
        return content

    def moved_to(self, patch: str, known: Iterable[str]) -> str | None:
        """Return the path of the one resolved file of a patch that is not in ``known``, or None."""
        root = self.directory / patch
        found = {
            os.path.relpath(os.path.join(folder, name), root)
            for folder, _, names in os.walk(root)
            for name in names
        }
        other = found.difference(known, [_DROP])
        return other.pop() if len(other) == 1 else None

    def _read(self, path: str) -> bytes | None:
        """Return the content of a file, or None. Raises UsageError when it is a link or cannot be read."""
        try:
            with DirectoryTree(self.directory) as tree:
                status = tree.lstat(path)
                return None if status is None or stat.S_ISDIR(status.st_mode) else tree.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise UsageError(f"{e.filename}: {e.strerror}", "put a file in its place") from e


def write_conflicts(directory: Path, patches: Iterable[PatchPort], title: str, command: str) -> None:
    """Write the conflicts of patches. Existing files are kept: the user may have edited them.

    ``command`` is the command that continues after the user's edits.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    with DirectoryTree(directory) as tree:
        for patch, file in ((one, file) for one in patches for file in one.files):
            if file.result == "conflict":
                lines.append(f"{patch.id}/{file.path}\n    {file.note}\n")
                _make_folders(tree, patch.id)
                path = f"{patch.id}/{file.path}"
                if file.after is not None and tree.lstat(path) is None:
                    _make_folders(tree, path.rpartition("/")[0])
                    _write(tree, path, file.after.content)
        _write(tree, README, _TEXT.format(title=title, files="".join(lines), command=command).encode())


def _make_folders(tree: DirectoryTree, path: str) -> None:
    for folder in [*reversed([*parent_folders(path)]), path]:
        with suppress(FileExistsError):
            tree.make_folder(folder)


def _write(tree: DirectoryTree, path: str, content: bytes) -> None:
    """Write a whole file or none."""
    folder, slash, _ = path.rpartition("/")
    new = f"{folder}{slash}.{secrets.token_hex(8)}.partial"
    tree.create(new, content)
    tree.rename(new, path)
