"""Read regular files that another user or a download may have put there.

Opening a named pipe can block forever, and a device has no end. Both are refused before they are opened, and
no more than a limit is read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

# More than any source file, record of an install or list of metrics has.
MAX_BYTES = 64 * 2**20


def open_regular(path: Path | str, *, dir_fd: int | None = None, follow: bool = True) -> IO[bytes]:
    """Open a regular file for reading.

    Args:
        dir_fd: the directory that a relative path starts from; None: the current directory.
        follow: follow a symbolic link in the place of the file; False: refuse it with ELOOP.

    Raises:
        OSError: with the path; EINVAL when it is not a regular file.
    """
    name = str(path)
    _check_regular(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow), name, follow)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags, dir_fd=dir_fd), "rb")
    try:
        # Another process may have replaced the file after the first check.
        _check_regular(os.fstat(file.fileno()), name, follow)
    except OSError:
        file.close()
        raise
    return file


def read_regular(
    path: Path | str, limit: int = MAX_BYTES, *, dir_fd: int | None = None, follow: bool = True
) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; see ``open_regular``.

    Raises:
        OSError: also EFBIG when the file is larger.
    """
    with open_regular(path, dir_fd=dir_fd, follow=follow) as file:
        return read_opened(file, path, limit)


def read_opened(file: IO[bytes], path: Path | str, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a file that ``open_regular`` has opened, of at most ``limit`` bytes.

    Raises:
        OSError: with ``path``; EFBIG when the file is larger.
    """
    size = os.fstat(file.fileno()).st_size
    # Asked for no more than there is: Python allocates what is asked for.
    content = b"" if size > limit else file.read(size + 1)
    if len(content) > size:  # a file of /proc, or one that grows
        content += file.read(limit + 1 - len(content))
    if size > limit or len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return content


def _check_regular(status: os.stat_result, path: str, follow: bool) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISLNK(status.st_mode) and not follow:
        raise OSError(errno.ELOOP, "is a symbolic link", path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "not a regular file", path)
