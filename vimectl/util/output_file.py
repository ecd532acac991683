"""Write the file that an output option names: a new one, a regular one, or standard output.

Anything else is refused: root would replace ``/dev/null`` by a file, a named pipe would block, and a link may
lead to a file that another user has chosen.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from vime_runtime.spec.atomic_io import write_bytes_atomically
from vime_runtime.spec.errors import UsageError

from vimectl.util.directory_lock import explain_disk_errors

STDOUT = Path("-")


def check_output(path: Path) -> None:
    """Raise UsageError unless ``path`` is ``-``, a regular file, or a new name in an existing folder."""
    if path == STDOUT:
        return
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if path.parent.is_dir():
            return
        raise UsageError(f"{path}: its folder does not exist", "create the folder first") from None
    except OSError as e:
        raise UsageError(f"{path}: cannot be written: {e.strerror}", "name another file") from e
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "not a regular file"
        raise UsageError(f"{path} is {kind}", "name a new file, a regular file, or - for standard output")


def write_output(path: Path, content: bytes) -> None:
    """Write ``content``: a reader of the file finds the old content or the new one.

    Raises:
        UsageError: see ``check_output``.
        MissingRequirement: the file cannot be written.
    """
    check_output(path)
    if path == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with explain_disk_errors(path, "name another file"):
        write_bytes_atomically(path, content)
