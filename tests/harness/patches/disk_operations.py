"""Count, refuse or record every operation with which a process changes a file system.

The tool changes files through functions of ``os`` alone (``pathlib`` and ``shutil`` come down to them), so
that replacing these sees all of it.
"""

from __future__ import annotations

import errno
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from vimectl.patches import transaction

NAMES = (
    "open", "write", "pwrite", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "symlink",
    "link", "truncate", "ftruncate", "chmod", "fchmod", "chown", "fchown", "utime",
    "setxattr", "removexattr",
)  # fmt: skip
# These need space, and so fail on a full disk.
TAKE_ROOM = ("open", "write", "pwrite", "mkdir", "symlink", "link", "replace", "rename")

Watch = Callable[[str, tuple[Any, ...], dict[str, Any]], None]


@contextmanager
def watched(before: Watch, after: Watch | None = None) -> Iterator[None]:
    """Call ``before`` with the name and arguments of each operation. The operation raises what it raises."""

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **keywords: Any) -> Any:
            if name == "open" and not (arguments[1] & os.O_CREAT):
                return real(*arguments, **keywords)  # changes nothing
            before(name, arguments, keywords)
            result = real(*arguments, **keywords)
            if after:
                after(name, (*arguments, result), keywords)
            return result

        return operation

    originals = {name: getattr(os, name) for name in NAMES}
    replaced = {name: wrapped(name, real) for name, real in originals.items()}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(os, **replaced))
        # Up to Python 3.10 pathlib keeps the functions it took from os when it was imported.
        if kept := getattr(pathlib, "_NormalAccessor", None):
            its = {
                name: staticmethod(replaced[name])
                for name in NAMES
                if vars(kept).get(name) is originals[name]
            }
            stack.enter_context(mock.patch.multiple(kept, **its))
        yield


def die_at(point: int, work: Callable[[], Any]) -> str | None:
    """Run ``work`` in a child that is killed (SIGKILL) before its n-th operation.

    Points count from 1; a write is two of them, the second one half done. Returns the name of the
    operation, or None when the work was done before.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        real = {name: getattr(os, name) for name in NAMES}

        def here(name: str) -> bool:
            nonlocal count
            count += 1
            if count == point:
                real["write"](write, name.encode())
            return count == point

        def before(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if here(name):
                os.kill(os.getpid(), signal.SIGKILL)
            if name in ("write", "pwrite") and here(f"half a {name}"):
                descriptor, data, *at = arguments
                real[name](descriptor, bytes(data)[: len(data) // 2], *at)
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            with watched(before):
                work()
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    _, status = os.waitpid(child, 0)
    name = os.read(read, 100).decode()
    os.close(read)
    assert name or status == 0, "the work itself failed"
    return name or None


@dataclass
class Faults:
    """Make the n-th operation fail; with ``lasting`` also every later one that the error applies to."""

    point: int
    error: int
    lasting: bool = False
    count: int = 0

    def __call__(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if self.error == errno.ENOSPC and name not in TAKE_ROOM:
            return
        self.count += 1
        if self.count == self.point or (self.lasting and self.count > self.point):
            raise OSError(self.error, os.strerror(self.error), str(arguments[0]))

    @property
    def met(self) -> bool:
        return self.count >= self.point


def absolute(path: Any, directory: int | None = None) -> str:
    """Return the path of a name, a descriptor, or a name relative to a descriptor's folder."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), name) if directory is not None else name


def interrupt(work: Callable[[], Any]) -> None:
    """Run ``work`` in a child that is killed when its journal is committed, before it replaces a file."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            # A kill loses nothing that the kernel has.
            with (
                mock.patch("os.fsync", return_value=None),
                mock.patch.object(transaction, "replace_files", side_effect=die),
            ):
                work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "no change was begun"
