"""Remember in the user's state folder which changes of targets this user began.

A target can bring a journal of an unfinished change. One is executed only if its digest is here, so that
only the user who began a change finishes it. The folder is ``$XDG_STATE_HOME/vimectl/changes``
(``~/.local/state`` by default), with one file for each change in progress.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.spec.fsync import sync

from vimectl.util.directory_tree import DirectoryTree

TOKEN = re.compile(r"[0-9a-f]{32}")


def folder() -> Path:
    """Return the folder of these files."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The specification of the variable ignores relative paths.
    home = Path(base) if os.path.isabs(base) else Path("~/.local/state").expanduser()
    return home / "vimectl" / "changes"


def remember(token: str, roots: Sequence[Path], journals: Sequence[bytes]) -> None:
    """Remember a change of some directories before its journal is committed.

    Raises:
        MissingRequirement: the folder belongs to another user, or cannot be written.
    """
    record = {"roots": [str(root) for root in roots], "journals": [_digest(one) for one in journals]}
    try:
        _make_folder(folder())
        with _open() as tree:
            tree.create(f"{_start(roots[0])}{token}.json", json.dumps(record).encode(), 0o600, os.fsync)
            tree.sync()
    except OSError as e:
        raise MissingRequirement(
            f"cannot write {folder()}: {e.strerror}",
            "nothing was changed; set XDG_STATE_HOME=DIR to a folder of your own that can be written",
        ) from e


def is_own(token: str, journal: bytes) -> bool:
    """Return True if this user began the change with this token and journal."""
    try:
        with _open() as tree:
            names = [name for name in tree.names() if name.endswith(f"-{token}.json")]
            return any(_digest(journal) in json.loads(tree.read(name))["journals"] for name in names)
    except (OSError, ValueError):
        return False


def forget(root: Path, is_pending: Callable[[Path], bool], token: str = "") -> None:  # nosec B107 # no secret
    """Forget the changes of which ``root`` is a directory and that are pending nowhere.

    The caller holds the lock of ``root``, so a change that is left here is of a process that was killed.
    """
    with suppress(OSError), _open() as tree:
        for name in tree.names():
            try:
                roots = json.loads(tree.read(name))["roots"]
            except (OSError, ValueError):  # it was being written, and its change had not begun
                roots = [str(root)] if name.startswith(_start(root)) else []
            ours = str(root) in roots or (token and name.endswith(f"-{token}.json"))
            if ours and not any(is_pending(Path(one)) for one in roots):
                tree.unlink(name)


def _start(first: Path) -> str:
    """Return the beginning of the names for changes of which ``first`` is the first directory."""
    return f"{_digest(os.fsencode(first))[:16]}-"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _make_folder(path: Path) -> None:
    """Create a folder for this user alone, and its missing parents, durably."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir(0o700)
    sync(path.parent)


def _open() -> DirectoryTree:
    """Open the folder. Raises OSError when another user can write to it."""
    tree = DirectoryTree(folder())
    found = os.fstat(tree.descriptor)
    if found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022:
        return tree
    tree.close()
    raise PermissionError(errno.EPERM, "other users can write to it", str(folder()))
