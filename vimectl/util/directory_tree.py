"""Access the files below a directory that is not trusted, by descriptor and never outside it.

A path string is resolved anew by every system call, so another process can put a symbolic link in the place
of a folder after it was checked. Here every folder is opened relative to the one above it (openat(2) with
O_NOFOLLOW), and files are created, renamed and removed relative to the open folder. Links between folders are
followed by this module itself and only inside the tree. openat2(2) with RESOLVE_BENEATH would do the same,
but Python has no call for it, and kernels before 5.6 do not have it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from vime_runtime.spec.regular_files import MAX_BYTES, open_regular, read_regular

# The limit of the kernel, path_resolution(7).
_MAX_LINKS = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class OutsideTreeError(OSError):
    """A path leads out of the tree, or through a link in a tree whose links are not followed."""


class DirectoryTree:
    """The files below a directory. Paths are relative, with ``/``, as in a patch.

    Args:
        root: the directory itself. It may be reached through links: the caller has chosen it.
        follow_links: follow links between folders that stay inside the tree; otherwise every folder on a path
            must be a real one. A link in the place of the file itself is never followed.
        private: a folder at the top of the tree that no link leads into, and in which none is followed.
        resolved: no folder on the path of ``root`` may be a link: the caller has resolved it before, and a
            user who owns one of these folders may have put a link in its place since.

    All methods raise OSError with the full path, OutsideTreeError among them. A folder that is missing is
    FileNotFoundError, a file in the place of a folder NotADirectoryError.
    """

    def __init__(
        self, root: Path, *, follow_links: bool = False, private: str = "", resolved: bool = False
    ) -> None:
        self.root = root
        self._follow, self._private = follow_links, private
        self.descriptor = _open_resolved(root) if resolved else os.open(root, _FOLDER & ~os.O_NOFOLLOW)

    def __enter__(self) -> DirectoryTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor of the root."""
        os.close(self.descriptor)

    def lstat(self, path: str) -> os.stat_result | None:
        """Return the status of a file, link or folder; None when it, or a folder on its path, is missing."""
        try:
            with self._parent(path) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: str, limit: int = MAX_BYTES) -> bytes:
        """Return the content of a regular file of at most ``limit`` bytes. A link is refused with ELOOP."""
        with self._parent(path) as (folder, name):
            return read_regular(name, limit, dir_fd=folder, follow=False)

    def open(self, path: str) -> IO[bytes]:
        """Open a regular file for reading. A link is refused with ELOOP."""
        with self._parent(path) as (folder, name):
            return open_regular(name, dir_fd=folder, follow=False)

    def read_link(self, path: str) -> bytes:
        """Return the target of a symbolic link."""
        with self._parent(path) as (folder, name):
            return os.readlink(os.fsencode(name), dir_fd=folder)

    def names(self, path: str = "") -> list[str]:
        """Return the names in a folder, sorted."""
        with self.folder(path) as folder:
            return sorted(os.listdir(folder))

    def create(
        self, path: str, content: bytes, mode: int = 0o666, finish: Callable[[int], object] | None = None
    ) -> None:
        """Create a file; FileExistsError when anything has its name. It is not synced.

        Args:
            mode: permission bits, which the umask restricts.
            finish: called with the descriptor after the content is written, to set owner and attributes.
        """
        with self._parent(path) as (folder, name):
            descriptor = os.open(name, _NEW_FILE, mode, dir_fd=folder)
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(descriptor, left) :]
                if finish:
                    finish(descriptor)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                raise
            finally:
                os.close(descriptor)

    def make_folder(self, path: str, mode: int = 0o777) -> None:
        """Create a folder in an existing one."""
        with self._parent(path) as (folder, name):
            os.mkdir(name, mode, dir_fd=folder)

    def symlink(self, target: bytes, path: str) -> None:
        """Create a symbolic link."""
        with self._parent(path) as (folder, name):
            os.symlink(target, os.fsencode(name), dir_fd=folder)

    def change_owner_of_link(self, path: str, uid: int, gid: int) -> None:
        """Change the owner of a symbolic link; raise OSError when it is anything else."""
        with self._parent(path) as (folder, name):
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "not a symbolic link")
                # By name, another process could put another file in its place; fchown(2) refuses links.
                os.chown(f"/proc/self/fd/{descriptor}", uid, gid)
            finally:
                os.close(descriptor)

    def rename(self, source: str, destination: str) -> None:
        """Rename a file; it replaces a file or link at ``destination``.

        Raises OSError also when the file system reports success but has not renamed the file.
        """
        with self._parent(source) as (old, old_name), self._parent(destination) as (new, new_name):
            os.rename(old_name, new_name, src_dir_fd=old, dst_dir_fd=new)
            if _exists(old_name, old) or not _exists(new_name, new):
                raise OSError(errno.EIO, f"was reported as renamed to {destination}, and was not")

    def unlink(self, path: str) -> None:
        """Remove a file or link."""
        with self._parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        with self._parent(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def sync(self, path: str = "") -> None:
        """Wait until the names in a folder are on the disk."""
        with self.folder(path) as folder:
            os.fsync(folder)

    @contextmanager
    def folder(self, path: str = "") -> Iterator[int]:
        """Open a folder of the tree, yielding its descriptor for the ``dir_fd`` of other calls."""
        try:
            opened = self._open([part for part in path.split("/") if part not in ("", ".")])
        except OSError as e:
            raise self._named(e, path) from None
        try:
            yield opened
        finally:
            os.close(opened)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the folder that has ``path``, yielding its descriptor and the last name."""
        folder, _, name = path.rpartition("/")
        if name in ("", ".", "..") or path.startswith("/"):
            raise OutsideTreeError(errno.EINVAL, "not a path in the tree", str(self.root / path))
        opened = None
        try:
            opened = self._open([part for part in folder.split("/") if part not in ("", ".")])
            yield opened, name
        except OSError as e:
            raise self._named(e, path) from None
        finally:
            if opened is not None:
                os.close(opened)

    def _named(self, error: OSError, path: str) -> OSError:
        """Return an error with the full path: the calls have only the last name."""
        return type(error)(error.errno, error.strerror, str(self.root / path))

    def _open(self, todo: list[str]) -> int:
        """Open the folder that these names lead to from the root."""
        opened, names = [self.descriptor], [""]
        links = 0
        try:
            todo.reverse()
            while todo:
                name = todo.pop()
                if name == "..":
                    if len(opened) == 1:
                        raise self._outside()
                    os.close(opened.pop())
                    names.pop()
                    continue
                try:
                    opened.append(os.open(name, _FOLDER, dir_fd=opened[-1]))
                    names.append(name)
                except OSError as e:
                    # A link gives ENOTDIR with O_DIRECTORY on Linux, ELOOP elsewhere.
                    if e.errno not in (errno.ENOTDIR, errno.ELOOP) or not _is_link(name, opened[-1]):
                        raise
                    links += 1
                    followed = self._follow and links <= _MAX_LINKS
                    if not followed or self._private in (name, *names[1:2]):
                        raise self._outside() from None
                    target = os.readlink(name, dir_fd=opened[-1])
                    if target.startswith("/"):
                        target = self._inside(target)
                        for descriptor in opened[1:]:
                            os.close(descriptor)
                        del opened[1:], names[1:]
                    todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
                if links and names[1:2] == [self._private]:
                    raise self._outside()
            return opened.pop() if len(opened) > 1 else os.dup(self.descriptor)
        finally:
            for descriptor in opened[1:]:
                os.close(descriptor)

    def _inside(self, target: str) -> str:
        """Return the path in the tree that an absolute link leads to."""
        root = f"{str(self.root).rstrip('/')}/"
        if not f"{target}/".startswith(root):
            raise self._outside()
        return target[len(root) :]

    def _outside(self) -> OutsideTreeError:
        reason = "a folder is a symbolic link" + (" that may not be followed" if self._follow else "")
        return OutsideTreeError(errno.ELOOP, reason, str(self.root))


def _open_resolved(root: Path) -> int:
    """Open a directory by its absolute path, of which no folder may be a link."""
    *above, last = root.parts
    # Other folders than the last need not be readable.
    steps = [(name, _FOLDER | os.O_PATH) for name in above] + [(last, _FOLDER)]
    opened: int | None = None
    try:
        for name, flags in steps:
            above_it, opened = opened, os.open(name, flags, dir_fd=opened)
            if above_it is not None:
                os.close(above_it)
    except OSError as e:
        if opened is not None:
            os.close(opened)
        raise type(e)(e.errno, e.strerror, str(root)) from None
    assert opened is not None
    return opened


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_link(name: str, folder: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
