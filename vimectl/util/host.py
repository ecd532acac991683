"""The interface through which the tool reads a machine: files, environment variables and commands.

A test describes a machine by a directory (its root file system), a dictionary (its environment) and a
function that answers commands. Paths are absolute paths of the machine. Reading never raises and never
blocks: what cannot be read is None or empty, and ``problem`` says why. Only regular files are read, up to a
size.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vimectl.util.console import err

# The limit of the kernel, path_resolution(7).
_MAX_SYMLINKS = 40
# The largest file that is read by default: far above any metadata or list of processes' sockets.
_MAX_BYTES = 16 * 2**20
# The kernel refuses to read a file of /proc/sys into a larger buffer (KMALLOC_MAX_SIZE, 4 MiB at least).
_CHUNK = 2**18
# The kernel refuses larger reads of /proc/sys (proc_sys_call_handler: ENOMEM).
_CHUNK = 2**16
# All but blanks, tabulators and the ends of lines and pages.
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f-\x9f]")
_LONG_NUMBER = re.compile(r"\d{1000}")
ABSENT = "absent"
DENIED = "permission denied"


# Exit codes of a command that did not end by itself, as those of a shell and of timeout(1).
TIMED_OUT, NOT_RUN, UNKNOWN_PROGRAM = 124, 126, 127


class CommandResult(NamedTuple):
    """A command's result. ``code`` is also TIMED_OUT, NOT_RUN or UNKNOWN_PROGRAM."""

    code: int
    stdout: str = ""
    stderr: str = ""


RunCommand = Callable[[Sequence[str], float], CommandResult]
# Receives each path or command that is read, and the problem with it (empty: none).
Observe = Callable[[str, str], None]


def run_command(argv: Sequence[str], timeout: float) -> CommandResult:
    """Run a command on this machine, output captured, killed after ``timeout`` seconds."""
    err.command(argv)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, errors="replace")
    except FileNotFoundError:
        return CommandResult(UNKNOWN_PROGRAM, "", f"{argv[0]}: not found")
    except subprocess.TimeoutExpired as e:
        # The partial output is bytes in spite of text=True.
        partial = e.stdout.decode(errors="replace") if isinstance(e.stdout, bytes) else ""
        return CommandResult(TIMED_OUT, partial, f"{argv[0]}: no answer within {timeout:g} s")
    except OSError as e:  # it exists, but this user or machine cannot execute it
        return CommandResult(NOT_RUN, "", f"{argv[0]}: {e.strerror}")
    return CommandResult(done.returncode, done.stdout, done.stderr)


def refuse_command(argv: Sequence[str], timeout: float) -> CommandResult:
    """Refuse to run a command: for a root file system that is only read."""
    return CommandResult(NOT_RUN, "", "commands are not run in another root")


def _ignore(what: str, problem: str) -> None:
    """Observe nothing."""


@dataclass(frozen=True)
class Host:
    """A machine: its root directory, its environment variables, and how to run a command on it.

    ``given_python`` is the interpreter to examine, a path of the machine; None: the one that would be used.
    ``package_directories`` are those of its packages; None: they are not determined yet.
    """

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: RunCommand = run_command
    given_python: str | None = None
    package_directories: tuple[str, ...] | None = None
    observe: Observe = _ignore

    @property
    def is_here(self) -> bool:
        """True for the running machine, False for a described or mounted one."""
        return self.root == Path("/")

    @property
    def is_running(self) -> bool:
        """True when the machine has processes and devices, unlike an unpacked image."""
        return self.exists("/proc/self/status")

    @property
    def python(self) -> str:
        """The Python interpreter that would run the job."""
        return self.given_python or (sys.executable if self.is_here else "python3")

    def path(self, absolute: str) -> Path:
        """Map an absolute path of the machine to a path of this process.

        Symlinks are resolved inside the machine's root, like RESOLVE_IN_ROOT of openat2(2): an absolute
        target is relative to the root, and ``..`` does not leave it. For the running machine the kernel
        resolves them.

        Raises:
            OSError: the path has more links than the kernel follows, or a directory that cannot be read.
        """
        if self.is_here:
            return Path("/", absolute)
        path, links = self.root, 0
        todo = list(reversed(PurePosixPath("/", absolute).parts[1:]))
        while todo:
            part = todo.pop()
            if part == "..":
                path = path if path == self.root else path.parent
                continue
            path = path / part
            try:
                target = PurePosixPath(os.readlink(path))
            except OSError as e:
                if e.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):  # not a link, or not there
                    continue
                raise
            links += 1
            if links > _MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), absolute)
            path = self.root if target.is_absolute() else path.parent
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        return path

    def status(self, absolute: str) -> os.stat_result | None:
        """Return the status of a file, links followed; None when it is absent or cannot be reached."""
        try:
            path = self.path(absolute)
            found = os.stat(path)
        except (OSError, ValueError) as e:
            self.observe(absolute, self._reason(absolute, e))
            return None
        # A check looks for a file that will be read.
        usable = not stat.S_ISREG(found.st_mode) or os.access(path, os.R_OK, effective_ids=True)
        self.observe(absolute, "" if usable else DENIED)
        return found

    def exists(self, absolute: str) -> bool:
        """Return True if a path exists, links followed."""
        return self.status(absolute) is not None

    def is_file(self, absolute: str) -> bool:
        """Return True for a regular file."""
        found = self.status(absolute)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_dir(self, absolute: str) -> bool:
        """Return True for a directory."""
        found = self.status(absolute)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def read_bytes(self, absolute: str, limit: int = _MAX_BYTES) -> bytes | None:
        """Return the content of a regular file of at most ``limit`` bytes, otherwise None."""
        content, problem = self._read(absolute, limit)
        self.observe(absolute, problem)
        return content

    def read_start(self, absolute: str, size: int) -> bytes | None:
        """Return the first ``size`` bytes of a regular file of any size, otherwise None."""
        content, problem = self._read(absolute, size, whole=False)
        self.observe(absolute, problem)
        return content

    def read(self, absolute: str) -> str | None:
        """Return the text of a regular file (see ``read_bytes``), or None.

        Bytes that are not UTF-8 are replaced, and control characters are kept; both are observed as problems.
        A text with a number of thousands of digits, which Python refuses to convert, is not returned.
        """
        content = self.read_bytes(absolute)
        if content is None:
            return None
        text = content.decode(errors="replace")
        if _LONG_NUMBER.search(text):
            self.observe(absolute, "has a number of more than 1000 digits")
            return None
        if "\ufffd" in text and "\ufffd".encode() not in content:
            self.observe(absolute, "not UTF-8 text")
        elif _CONTROL.search(text) and not absolute.startswith("/proc/"):  # NULs separate arguments there
            self.observe(absolute, "has control characters")
        return text

    def problem(self, absolute: str) -> str:
        """Return why a file cannot be read (``ABSENT`` if it does not exist); empty if it can."""
        return self._read(absolute, _MAX_BYTES)[1]

    def search(self, absolute: str, pattern: str) -> re.Match[str] | None:
        """Search a file, ``^`` and ``$`` match at each line; None also when it is absent or unreadable."""
        return re.search(pattern, self.read(absolute) or "", re.MULTILINE)

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted; empty when it cannot be read."""
        try:
            found = sorted(os.listdir(self.path(directory)))
        except (OSError, ValueError) as e:
            self.observe(directory, self._reason(directory, e))
            return []
        self.observe(directory, "")
        return found

    def glob(self, pattern: str) -> list[str]:
        """Return the paths that match a pattern, sorted. ``*`` matches within one name."""
        return sorted(self._matching("", list(PurePosixPath("/", pattern).parts[1:])))

    def _matching(self, directory: str, parts: list[str]) -> Iterator[str]:
        if not parts:
            yield directory
            return
        first, *rest = parts
        if not re.search(r"[*?\[]", first):
            path = f"{directory}/{first}"
            if self.is_dir(path) if rest else self.exists(path):
                yield from self._matching(path, rest)
            return
        for name in self.names(directory or "/"):
            path = f"{directory}/{name}"
            if fnmatchcase(name, first) and (not rest or self.is_dir(path)):
                yield from self._matching(path, rest)

    def _read(self, absolute: str, limit: int, whole: bool = True) -> tuple[bytes | None, str]:
        try:
            path = self.path(absolute)
            # Opening a device or a named pipe can block or have an effect.
            allowed = limit if whole else sys.maxsize
            if problem := _unreadable(os.stat(path), allowed):
                return None, problem
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if self.is_here else os.O_NOFOLLOW)
            with open(os.open(path, flags), "rb", buffering=0) as file:
                if problem := _unreadable(os.fstat(file.fileno()), allowed):
                    return None, problem
                if not whole:
                    return file.read(limit), ""
                content = bytearray()
                while len(content) <= limit and (chunk := file.read(_CHUNK)):
                    content += chunk
        except (OSError, ValueError) as e:
            return None, self._reason(absolute, e)
        return (None, _too_large(limit)) if len(content) > limit else (bytes(content), "")

    def _reason(self, absolute: str, error: OSError | ValueError) -> str:
        """Return why a path cannot be read, in the words of strerror(3)."""
        if isinstance(error, PermissionError):
            return DENIED
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            text = error.strerror if isinstance(error, OSError) else str(error)
            return (text or type(error).__name__).lower()
        try:
            folder, _, name = absolute.rstrip("/").rpartition("/")
            target = os.readlink(self.path(folder or "/") / name)
        except (OSError, ValueError):
            return ABSENT
        return f"a link to {target}, which does not exist"


def _unreadable(status: os.stat_result, limit: int) -> str:
    """Return why a file is not read, or nothing."""
    if stat.S_ISREG(status.st_mode):
        return _too_large(limit) if status.st_size > limit else ""
    if stat.S_ISDIR(status.st_mode):
        return "a directory, not a file"
    return "a named pipe, not a file" if stat.S_ISFIFO(status.st_mode) else "not a regular file"


def _too_large(limit: int) -> str:
    return f"larger than {limit} bytes"
