"""Archive a repository at one commit, reproducibly. git fetches it and checks its integrity."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.images.plan import ImageSource
from vimectl.util.subprocess import run_logged

OnLine = Callable[[str], None]

# Never prompt for a password, which would block a job forever; credential helpers still work. In English,
# because the messages are parsed. A server that sends nothing for a minute counts as unreachable.
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1",
    "GIT_HTTP_LOW_SPEED_TIME": "60",
}
# The server does not serve a commit by its id, or does not have it: everything is fetched instead.
_NOT_BY_ID = ("unadvertised object", "not our ref", "couldn't find remote ref", "no such remote ref")
_LINK, _COMMIT = "120000", "160000"


@dataclass(frozen=True)
class BareRepository:
    """A bare repository to fetch commits into. ``lock_fd`` and ``log`` are as in ``run_logged``."""

    path: Path
    lock_fd: int
    log: Path

    def fetch(self, url: str, commit: str, on_line: OnLine) -> None:
        """Fetch one commit without its history.

        Raises:
            CheckFailed: the repository has no such commit.
            MissingRequirement: it cannot be reached, or git is missing.
        """
        self._checked_git(["init", "--quiet", "--bare", str(self.path)], url, on_line)
        status, output = self._git(["fetch", "--progress", "--depth=1", "--", url, commit], on_line)
        if status != 0 and any(sign in output for sign in _NOT_BY_ID):
            everything = ["fetch", "--progress", "--no-tags", "--", url, "+refs/*:refs/fetched/*"]
            self._checked_git(everything, url, on_line)
            status, output = self._git(["cat-file", "-e", f"{commit}^{{commit}}"], on_line)
            if status != 0:
                raise CheckFailed(
                    f"{url} has no commit {commit}", "correct the commit or the URL in the stack"
                )
        if status != 0:
            raise _failed(url, output)

    def tree(self, commit: str) -> list[tuple[str, str, str]]:
        """Return mode, object id and path of everything in a commit, in git's order."""
        listing = self._read(["ls-tree", "-r", "-z", "--full-tree", commit])
        entries = []
        for line in listing.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            entry, _, path = line.partition("\t")
            mode, _, object_id = entry.split()
            entries.append((mode, object_id, path))
        return entries

    def timestamp(self, commit: str) -> int:
        """Return the date of a commit in seconds of Unix time."""
        return int(self._read(["log", "-1", "--format=%ct", commit]))

    @contextmanager
    def blobs(self) -> Iterator[Callable[[str], bytes]]:
        """Yield a function from an object id to its content; one git process serves all calls."""
        command = ["git", f"--git-dir={self.path}", "cat-file", "--batch"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            requests, answers = child.stdin, child.stdout

            def content(object_id: str) -> bytes:
                requests.write(f"{object_id}\n".encode())
                requests.flush()
                _, _, size = answers.readline().split()
                data = answers.read(int(size))
                answers.read(1)
                return data

            yield content
            requests.close()

    def _read(self, arguments: list[str]) -> bytes:
        command = ["git", f"--git-dir={self.path}", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def _git(self, arguments: list[str], on_line: OnLine) -> tuple[int, str]:
        command = ["git", *([] if arguments[0] == "init" else [f"--git-dir={self.path}"]), *arguments]
        try:
            return run_logged(command, self.log, on_line, _ENVIRONMENT, self.lock_fd)
        except FileNotFoundError as e:
            raise MissingRequirement("git is not installed", "apt-get install git") from e

    def _checked_git(self, arguments: list[str], url: str, on_line: OnLine) -> None:
        status, output = self._git(arguments, on_line)
        if status != 0:
            raise _failed(url, output)


def archive(source: ImageSource, target: Path, work: Path, lock_fd: int, on_line: OnLine) -> None:
    """Write the commit of a source, and those of its submodules, as ``target`` (.tar.gz).

    Everything is in one directory, ``NAME-COMMIT``. The bytes only depend on the commit. ``work`` is for the
    repositories and is removed; ``target`` is created atomically.

    Raises:
        CheckFailed: there is no such commit, or its submodules are not those of the source.
        MissingRequirement: a repository cannot be reached, or git is missing.
    """
    shutil.rmtree(work, ignore_errors=True)  # of a call that was killed
    work.mkdir(parents=True)
    part = work / target.name
    repositories = {}
    try:
        checkouts = [("", source.url, source.commit)]
        checkouts += [(f"{one.path}/", one.url, one.commit) for one in source.submodules]
        for number, (_, url, commit) in enumerate(checkouts):
            repository = BareRepository(work / f"{number}.git", lock_fd, work / "git.log")
            repository.fetch(url, commit, on_line)
            repositories[commit] = repository
        main = repositories[source.commit]
        _check_submodules(source, main.tree(source.commit))
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for prefix, _, commit in sorted(checkouts):
                top = f"{source.name}-{source.commit}/{prefix}"
                _add(tar, top, repositories[commit], commit, main.timestamp(source.commit))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _add(tar: tarfile.TarFile, prefix: str, repository: BareRepository, commit: str, seconds: int) -> None:
    with repository.blobs() as content:
        for mode, object_id, path in repository.tree(commit):
            if mode == _COMMIT:
                continue
            entry = tarfile.TarInfo(prefix + path)
            entry.mtime = seconds
            data = content(object_id)
            body: IO[bytes] | None = None
            if mode == _LINK:
                entry.type, entry.linkname = tarfile.SYMTYPE, data.decode("utf-8", "surrogateescape")
            else:
                entry.mode = stat.S_IMODE(int(mode, 8))
                entry.size, body = len(data), BytesIO(data)
            tar.addfile(entry, body)


def _check_submodules(source: ImageSource, tree: list[tuple[str, str, str]]) -> None:
    """Compare the submodules of the source with those in the tree of its commit."""
    has = {
        path: object_id for mode, object_id, path in tree if mode == _COMMIT and path not in source.left_out
    }
    listed = {one.path: one.commit for one in source.submodules}
    if has != listed:
        texts = [
            ", ".join(f"{path} {commit}" for path, commit in each.items()) or "none" for each in (has, listed)
        ]
        raise CheckFailed(
            f"{source.name} {source.commit} has the submodules {texts[0]}; the stack lists {texts[1]}",
            "list them in the stack, or in left_out the paths of those that are not needed",
        )


def _failed(url: str, output: str) -> MissingRequirement:
    if "No space left on device" in output:
        return MissingRequirement(
            f"fetching {url}: no space left", "free some space, or name a folder on another disk"
        )
    lines = [line.strip() for line in output.splitlines() if line.startswith(("fatal: ", "error: ", "ssh: "))]
    return MissingRequirement(
        f"{url} cannot be fetched: {'; '.join(lines[:2]) or 'git gives no reason'}",
        "use a mirror: git config --global url.MIRROR.insteadOf "
        f"{url.rpartition('/')[0] or url}/; then run the same command again, it resumes where it stopped",
    )
