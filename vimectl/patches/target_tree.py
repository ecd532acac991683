"""Access the files of a target directory by descriptor.

Links between folders of the target are followed while they stay inside. The bookkeeping folder ``.vimectl``
is a real folder in which no link is followed, because a downloaded target can bring one.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vime_runtime.spec.regular_files import MAX_BYTES, read_opened

from vimectl.patches.blobs import NO_FILE, FileId, blob_id
from vimectl.util.directory_tree import DirectoryTree, OutsideTreeError

FOLDER = ".vimectl"


def open_tree(location: Path) -> DirectoryTree:
    """Open a target directory, whose path has no links. Raises OSError."""
    return DirectoryTree(location, follow_links=True, private=FOLDER, resolved=True)


def read_with_status(tree: DirectoryTree, path: str) -> tuple[bytes | None, os.stat_result | None]:
    """Return what git stores for a file, and its status; None for no file.

    The content of a symbolic link is its target. Raises OSError for anything but a file or link, and for a
    file of more than ``MAX_BYTES``.
    """
    try:
        with tree.open(path) as file:
            return read_opened(file, tree.root / path), os.fstat(file.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OutsideTreeError:
        raise
    except OSError as e:
        if e.errno != errno.ELOOP:
            raise
        return tree.read_link(path), tree.lstat(path)


def content_in(tree: DirectoryTree, path: str) -> bytes | None:
    """Return what git stores for a file; see ``read_with_status``."""
    return read_with_status(tree, path)[0]


def file_id_in(tree: DirectoryTree, path: str) -> FileId:
    """Return the id of a file; see ``read_with_status``."""
    content, status = read_with_status(tree, path)
    return NO_FILE if content is None or status is None else FileId(blob_id(content), status.st_mode)


def blocker_in(tree: DirectoryTree, path: str) -> str | None:
    """Return why nothing may be written to ``path``, or None.

    A symbolic link in the place of the file itself is allowed: a series may patch one.
    """
    folder, _, name = path.rpartition("/")
    try:
        with tree.folder(folder) as opened:
            status = os.stat(name, dir_fd=opened, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return "a file is in the place of one of its folders"
    except OutsideTreeError:
        return f"its folder is a symbolic link out of the target, to {os.path.realpath(tree.root / folder)}"
    if stat.S_ISLNK(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        is_folder = stat.S_ISDIR(status.st_mode)
        return f"{'a folder' if is_folder else 'something that is no file'} is in its place"
    return f"it is larger than {MAX_BYTES >> 20} MiB" if status.st_size > MAX_BYTES else None


def nearest_folder(tree: DirectoryTree, path: str) -> str:
    """Return the innermost existing folder on the path of a file; "" is the target itself."""
    folder = os.path.dirname(path)
    while folder and tree.lstat(folder) is None:
        folder = os.path.dirname(folder)
    return folder


def make_folders(tree: DirectoryTree, path: str) -> list[str]:
    """Create a folder and its missing parents; root gives each the owner of its parent.

    Returns the created folders, the outermost first.
    """
    if not path or tree.lstat(path) is not None:
        return []
    made = [*make_folders(tree, os.path.dirname(path)), path]
    try:
        tree.make_folder(path)
    except FileExistsError:  # another process made it at this moment
        return made
    if os.geteuid() == 0:
        with tree.folder(os.path.dirname(path)) as parent, tree.folder(path) as folder:
            above, own = os.fstat(parent), os.fstat(folder)
            # Another user may have put one of root's own folders in its place: that one has files.
            if (own.st_uid, own.st_gid) != (above.st_uid, above.st_gid) and not os.listdir(folder):
                os.fchown(folder, above.st_uid, above.st_gid)
    return made
