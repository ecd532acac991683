"""Replace files of a described machine by faults, one after another, and examine the machine with each.

``python -m harness.doctor.faults MACHINE DIRECTORY [--all]`` prints a JSON document with the number of faults
by kind and what was wrong. It runs in a separate process: an audit hook sees every file that is opened and
cannot be removed, and a superuser must start it without the capabilities that override permissions.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from harness import REPOSITORY
from harness.doctor.described_machine import CONFIG, INSTALLED, Machine
from vimectl.cli.doctor_view import report_text
from vimectl.doctor.checks.host import READABLE
from vimectl.doctor.runner import DoctorReport

# A blocked call never returns, and a busy machine is not that slow.
_BLOCKED_SECONDS = 60
# More than the same checks take on the healthy machine.
_CPU_SECONDS = 1.0
_MEMORY = 2 * 2**30
_SPARSE_BYTES = 4 * 2**30
_ESCAPES = "\x1b]0;evil\x07\x1b[31m\x9b1m\0"
_OWN = tuple(str(Path(path).resolve()) for path in (REPOSITORY, sys.prefix, sys.base_prefix))


# Puts a fault in the place of a file. Arguments: the path, its healthy content, a path outside of the root.
Fault = Callable[[Path, bytes, Path], None]
# The same for a directory, which has been moved out of the root. Arguments: its path, and where it is now.
DirectoryFault = Callable[[Path, Path], None]
F = TypeVar("F", Fault, DirectoryFault)
# Id, status and text of each result.
Said = set[tuple[str, str, str]]


class Opened:
    """The files that this process opens and the directories that it lists, other than its code."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.enabled = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.enabled or event not in ("open", "os.listdir", "os.scandir", "subprocess.Popen"):
            return
        if isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(_OWN):
                self.paths.add(path)

    @contextmanager
    def record(self) -> Iterator[set[str]]:
        """Collect the paths that are opened inside."""
        self.paths = set()
        self.enabled = True
        try:
            yield self.paths
        finally:
            self.enabled = False


def absent(path: Path, content: bytes, outside: Path) -> None:
    """Put nothing in the place."""


def unreadable(path: Path, content: bytes, outside: Path) -> None:
    path.write_bytes(content)
    path.chmod(0)


def directory(path: Path, content: bytes, outside: Path) -> None:
    path.mkdir()


def fifo(path: Path, content: bytes, outside: Path) -> None:
    os.mkfifo(path)


def dangling_link(path: Path, content: bytes, outside: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def looping_link(path: Path, content: bytes, outside: Path) -> None:
    path.symlink_to(path.name)


def link_out(path: Path, content: bytes, outside: Path) -> None:
    """The target has the healthy content, so that following the link would be seen in the report."""
    outside.write_bytes(content)
    path.symlink_to(outside)


def relative_link_out(path: Path, content: bytes, outside: Path) -> None:
    outside.write_bytes(content)
    path.symlink_to(os.path.relpath(outside, path.parent))


def sparse(path: Path, content: bytes, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(_SPARSE_BYTES)


def not_utf8(path: Path, content: bytes, outside: Path) -> None:
    path.write_bytes(b"\xff\xfe\xc3\x28" + bytes(byte ^ 0x80 for byte in content[:4096]))


def escapes(path: Path, content: bytes, outside: Path) -> None:
    lines = content[:65536].decode(errors="replace").splitlines() or [""]
    path.write_text("".join(f"{line}{_ESCAPES}\n" for line in lines))


def long_numbers(path: Path, content: bytes, outside: Path) -> None:
    """Python refuses to convert numbers of this length."""
    path.write_bytes(re.sub(rb"\d+", b"9" * 5000, content[:4096]))


FAULTS: tuple[Fault, ...] = (
    *(absent, unreadable, directory, fifo, dangling_link, looping_link, link_out, relative_link_out),
    *(sparse, not_utf8, escapes, long_numbers),
)


def unreadable_directory(path: Path, healthy: Path) -> None:
    path.mkdir()
    path.chmod(0)


def directory_out(path: Path, healthy: Path) -> None:
    """The target has the healthy files, so that following the link would be seen in the report."""
    path.symlink_to(healthy)


def relative_directory_out(path: Path, healthy: Path) -> None:
    path.symlink_to(os.path.relpath(healthy, path.parent))


def looping_directory(path: Path, healthy: Path) -> None:
    path.symlink_to(path.name)


DIRECTORY_FAULTS = (unreadable_directory, directory_out, relative_directory_out, looping_directory)
# The content differs. A file that is only looked for is as good with another content.
_OF_CONTENT = (sparse, not_utf8, escapes)
# The faults that need not be said. Device nodes are no regular files; the kernel writes what is below /proc.
_FINE = {
    "/dev/*": (unreadable, directory, fifo, *_OF_CONTENT),
    "/proc/*": (absent, *_OF_CONTENT),
    "/.dockerenv": (absent, directory, fifo),  # only its existence counts, and not in an image
    "/etc/ascend_install.info": (fifo,),
    "/etc/hccn.conf": (absent, directory, fifo),  # for several nodes, where their content is read
    "*/hccn_tool": (absent, directory, fifo),
    "/etc/ld.so.conf*": (absent,),  # optional
    "*/RECORD": (absent,),  # optional: other installers than pip write none
    "*/torchvision-*/METADATA": (absent,),  # no package of the stack
    "*/bin/python*": _OF_CONTENT,  # only opened
    "*.so": (escapes,),
    "*/libatb.so": (directory, fifo),  # an image has no variables that say where it is loaded from
    "*/tokenizer.json": _OF_CONTENT,
    "*/chat_template.jinja": _OF_CONTENT,
    "*/__init__.py": (not_utf8, escapes),  # the RECORD of these has no digests
    "*": (long_numbers,),
}


class Injection:
    """The faults of one machine."""

    def __init__(self, name: str, folder: Path, everything: bool) -> None:
        self.machine = Machine(name, folder / "root")
        self.everything = everything
        self.outside, self.saved = folder / "outside", folder / "saved"
        self.opened = Opened()
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.examine([])  # imports what is imported late
        with self.opened.record() as read:
            self.healthy = self.examine([])
        self.read = set(read)
        self.observed = {os.path.realpath(self.machine.path(path)) for path in self.healthy.facts.observed}
        self.check_opened("the healthy machine", read)

    def files(self) -> list[str]:
        """Return the paths of the files to replace: all, or those that a check observed."""
        root = self.machine.root
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        chosen = [path for path in files if self.everything or str(path) in self.observed]
        # The tool's own configuration is the user's, not the machine's.
        chosen = [path for path in chosen if not path.is_relative_to(self.machine.path(CONFIG))]
        return [f"/{path.relative_to(root)}" for path in chosen]

    def examine(self, only: list[str]) -> DoctorReport:
        signal.alarm(_BLOCKED_SECONDS)
        try:
            return self.machine.examine(only)
        finally:
            signal.alarm(0)

    def directories(self) -> list[str]:
        """Return the directories above these files, except the root."""
        above = {str(parent) for name in self.files() for parent in PurePosixPath(name).parents}
        return sorted(above - {"/"})

    def inject(self, name: str) -> None:
        """Examine the machine with every fault of one file."""
        path = self.machine.path(name)
        real = os.path.realpath(path)
        # The checks that read it, or that list its directory.
        places = {real, os.path.dirname(real)}
        readers = [
            result.id
            for result in self.healthy.results
            if any(os.path.realpath(self.machine.path(one)) in places for one in result.read)
        ]
        only = [] if self.everything else sorted({*readers, READABLE, "python.version"})
        content = path.read_bytes() if path.stat().st_size < _MEMORY else b""

        def put(fault: Fault) -> bool:
            if fault in (link_out, relative_link_out) and not content:
                return False
            fault(path, content, self.outside)
            return True

        self._inject_all(path, name, FAULTS, put, only)

    def inject_directory(self, name: str) -> None:
        """Examine the machine with every fault of a directory."""
        path = self.machine.path(name)

        def put(fault: DirectoryFault) -> bool:
            fault(path, self.saved)
            return True

        self._inject_all(path, name, DIRECTORY_FAULTS, put, [])

    def _inject_all(
        self, path: Path, name: str, faults: Sequence[F], put: Callable[[F], bool], only: list[str]
    ) -> None:
        before, _, limit = self._examined(only)
        path.rename(self.saved)
        for fault in faults:
            if put(fault):
                os.utime(path.parent, (INSTALLED, INSTALLED))
                self._check(name, fault, only, before, limit)
                self.counts[fault.__name__] += 1
                _remove(path)
        self.saved.rename(path)
        os.utime(path.parent, (INSTALLED, INSTALLED))

    def _check(
        self, name: str, fault: Fault | DirectoryFault, only: list[str], before: Said, limit: float
    ) -> None:
        what = f"{name}: {fault.__name__}"
        try:
            with self.opened.record() as opened:
                found, report, seconds = self._examined(only)
        except BaseException as e:
            self.problems.append(f"{what}: {type(e).__name__}: {str(e)[:300]}")
            return
        self.check_opened(what, opened)
        self.check_text(what, report)
        if seconds > limit + _CPU_SECONDS:
            self.problems.append(f"{what}: {seconds:.1f} s, healthy {limit:.1f} s")
        if found == before and self.must_be_said(name, fault):
            self.problems.append(f"{what}: not said")

    def must_be_said(self, name: str, fault: Fault | DirectoryFault) -> bool:
        """Return True unless the healthy machine is as good with this fault."""
        real = os.path.realpath(self.machine.path(name))
        if not any(path == real or path.startswith(f"{real}/") for path in self.observed):
            return False
        if fault in _OF_CONTENT and real not in self.read:
            return False
        return not any(fault in fine for pattern, fine in _FINE.items() if fnmatchcase(name, pattern))

    def _examined(self, only: list[str]) -> tuple[Said, DoctorReport, float]:
        began = time.process_time()
        report = self.examine(only)
        said: Said = {(result.id, result.status, result.found) for result in report.results}
        return said, report, time.process_time() - began

    def check_opened(self, what: str, paths: set[str]) -> None:
        """Nothing outside of the root may be opened, but /: a walk by descriptor starts there."""
        root = str(self.machine.root)
        foreign = [path for path in paths if path not in (root, "/") and not path.startswith(f"{root}/")]
        if foreign:
            self.problems.append(f"{what}: opened {foreign}")

    def check_text(self, what: str, report: DoctorReport) -> None:
        """No control character may reach the terminal or the JSON document."""
        texts = [line.plain for line in report_text(report, every=True)]
        texts += _strings(report.as_json())
        raw = {c for text in texts for c in text if unicodedata.category(c) == "Cc" and c != "\n"}
        if raw:
            self.problems.append(f"{what}: raw {raw}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for item in items for text in _strings(item)]


def main(name: str, folder: str, *more: str) -> None:
    """Print what was injected and what was wrong."""

    def blocked(signum: int, frame: object) -> None:
        raise TimeoutError("blocked")

    signal.signal(signal.SIGALRM, blocked)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    injection = Injection(name, Path(folder).resolve(), "--all" in more)
    files = injection.files()
    directories = injection.directories()
    for file in files:
        injection.inject(file)
    for name in directories:
        injection.inject_directory(name)
    found = {
        "files": len(files),
        "directories": len(directories),
        "faults": dict(injection.counts),
        "problems": injection.problems,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
