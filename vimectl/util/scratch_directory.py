"""The scratch directory of a run: its lock, its marker, and which ones are left from runs that have ended.

The process that owns a run holds an exclusive flock(2) on ``OWNER`` in the directory as long as it lives. It
writes the marker into that file once it has the lock. So a file with a marker and a free lock is from a
process that was killed. Without both nothing is known: another version may have made the directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from vime_runtime.spec.boot_id import boot_id
from vime_runtime.spec.regular_files import open_regular
from vime_runtime.spec.run_paths import SCRATCH_PREFIX

from vimectl.util import shared_memory
from vimectl.util.host import Host
from vimectl.util.shared_memory import SHM, ShmFile

SCRATCH = re.compile(rf"/(?:[^\0\n]*/)?{SCRATCH_PREFIX}[0-9a-f]{{8}}")
OWNER = "vimectl-run.json"
# An AF_UNIX path has 107 bytes (unix(7)), and Ray adds up to 68 to the scratch directory.
SOCKET_PATH_BYTES = 107
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
# The files in /dev/shm that processes of the run have used: inode and path.
SHM_LOG = "vimectl-shm.log"
_SCHEMA = "vimectl.scratch/1"

ScratchState = Literal["active", "ended", "unknown"]


@dataclass(frozen=True)
class ScratchOwner:
    """The marker: the process that owns the run, its machine, and the run directory if there is one.

    ``inode`` is that of the file with the marker, so that a copy is not taken for the directory; 0: unknown.
    """

    schema: str
    pid: int
    boot: str
    host: str
    run_dir: str
    inode: int = 0


@dataclass(frozen=True)
class ScratchDirectory:
    """A scratch directory. ``shm`` are files in /dev/shm that its run used: path to inode.

    ``active``: its owner lives. ``ended``: this user's, with our marker, and the owner does not live.
    """

    path: str
    state: ScratchState
    run_dir: str = ""
    shm: tuple[tuple[str, int], ...] = ()


def scratch_parent(temporary: str) -> str:
    """Return the directory for scratch directories: the one for temporary files, or /tmp if Ray's sockets
    below that would have too long a path.
    """
    path = f"{temporary}/{SCRATCH_PREFIX}{'0' * 8}{RAY_SOCKET}"
    return temporary if len(os.fsencode(path)) <= SOCKET_PATH_BYTES else "/tmp"  # nosec B108 # for mkdtemp


@contextmanager
def scratch_directory(path: Path, run_dir: Path | None = None) -> Iterator[Path]:
    """Create a scratch directory that this process owns, and remove it at the end.

    Args:
        run_dir: the run directory, if `vimectl runs stop` stops the run.

    Yields:
        the file in which to log the files in /dev/shm that the run uses.

    Raises:
        OSError: it cannot be created or locked.
    """
    path.mkdir(mode=0o700)
    # Closed, and so unlocked, after the removal. Close-on-exec: no child keeps the lock.
    with (path / OWNER).open("x", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            inode, where = os.fstat(file.fileno()).st_ino, str(run_dir or "")
            owner = ScratchOwner(_SCHEMA, os.getpid(), boot_id(), os.uname().nodename, where, inode)
            file.write(json.dumps(asdict(owner)) + "\n")
            file.flush()
            yield path / SHM_LOG
        finally:
            shutil.rmtree(path, ignore_errors=True)


def read_scratch_directory(host: Host, path: str) -> ScratchDirectory:
    """Return the state of a scratch directory; ``unknown`` unless it is proven."""
    status = host.status(path)
    # That of another user cannot be read.
    owner = _read_owner(host, path) if status and status.st_uid == os.getuid() else None
    if owner is None:
        return ScratchDirectory(path, "unknown")
    if _is_locked(host, f"{path}/{OWNER}"):
        return ScratchDirectory(path, "active", owner.run_dir)
    same_boot = owner.boot == (host.read("/proc/sys/kernel/random/boot_id") or "").strip()
    # In a directory that machines share, the lock may be held on another machine.
    if not same_boot and owner.host != (host.read("/proc/sys/kernel/hostname") or "").strip():
        return ScratchDirectory(path, "unknown", owner.run_dir)
    # After a boot the numbers of inodes start again.
    logged = re.findall(rf"^(\d+) ({SHM}/\S+)$", host.read(f"{path}/{SHM_LOG}") or "", re.MULTILINE)
    shm = tuple((file, int(inode)) for inode, file in logged) if same_boot else ()
    return ScratchDirectory(path, "ended", owner.run_dir, shm)


def remove_ended(one: ScratchDirectory) -> list[ShmFile] | None:
    """Remove an ``ended`` scratch directory of this machine and the files in /dev/shm that its run used.

    Returns:
        The removed files in /dev/shm; None if it is not proven that the directory has ended, or if another
        process removes it.

    Raises:
        OSError: something in it cannot be removed.
    """
    folder = os.open(one.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open_regular(OWNER, dir_fd=folder, follow=False) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            status, owner = os.fstat(file.fileno()), _parse_owner(file.read().decode(errors="replace"))
            ours = status.st_uid == os.fstat(folder).st_uid == os.getuid()
            if not ours or not status.st_nlink or owner is None or owner.inode != status.st_ino:
                return None
            files = _remove_shm(one)
            # The marker last: an interrupted removal can be repeated.
            for name in os.listdir(folder):
                if name != OWNER:
                    _remove_entry(name, folder)
            os.unlink(OWNER, dir_fd=folder)
            os.rmdir(one.path)
            return files
    finally:
        os.close(folder)


def _remove_entry(name: str, folder: int) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        # rmtree has dir_fd from Python 3.11 on only.
        shutil.rmtree(f"/proc/self/fd/{folder}/{name}")
    else:
        os.unlink(name, dir_fd=folder)


def _remove_shm(one: ScratchDirectory) -> list[ShmFile]:
    unused = shared_memory.unused_files(Host()) if one.shm else {}
    files = [unused[inode] for path, inode in one.shm if inode in unused and unused[inode].path == path]
    for file in files:
        Path(file.path).unlink(missing_ok=True)
    return files


def _read_owner(host: Host, path: str) -> ScratchOwner | None:
    return _parse_owner(host.read(f"{path}/{OWNER}"))


def _parse_owner(text: str | None) -> ScratchOwner | None:
    try:
        found = ScratchOwner(**json.loads(text or "null"))
    except (ValueError, TypeError, RecursionError):  # absent, another file, or not yet written
        return None
    texts = (found.boot, found.host, found.run_dir)
    return found if found.schema == _SCHEMA and all(isinstance(text, str) for text in texts) else None


def _is_locked(host: Host, path: str) -> bool:
    """Return True if a process holds the lock, or if that cannot be found out."""
    try:
        with host.path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
