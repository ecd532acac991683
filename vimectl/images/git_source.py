"""A repository at one commit as an archive: fetched by git, which checks it, and always the same bytes."""

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

from vimectl.images.plan import Source
from vimectl.util.subprocess import follow

OnLine = Callable[[str], None]

# Never ask for a password at a terminal, which would wait for ever in a job; credential helpers still answer.
# In English, so that what git says can be told apart. A server that sends nothing for a minute is given up.
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1",
    "GIT_HTTP_LOW_SPEED_TIME": "60",
}
# A server that gives no commit by its id alone, or has none of this id: everything it has is fetched instead.
_NOT_BY_ID = ("unadvertised object", "not our ref", "couldn't find remote ref", "no such remote ref")
_LINK, _COMMIT = "120000", "160000"


@dataclass(frozen=True)
class Repository:
    """A bare repository into which commits are fetched. ``held`` and ``log`` are as in ``child.follow``."""

    path: Path
    held: int
    log: Path

    def have(self, url: str, commit: str, on_line: OnLine) -> None:
        """Fetch one commit without its history.

        Raises:
            CheckFailed: the repository has no such commit.
            MissingRequirement: it cannot be reached, or there is no git.
        """
        self._must(["init", "--quiet", "--bare", str(self.path)], url, on_line)
        status, output = self._git(["fetch", "--progress", "--depth=1", "--", url, commit], on_line)
        if status != 0 and any(sign in output for sign in _NOT_BY_ID):
            everything = ["fetch", "--progress", "--no-tags", "--", url, "+refs/*:refs/fetched/*"]
            self._must(everything, url, on_line)
            status, output = self._git(["cat-file", "-e", f"{commit}^{{commit}}"], on_line)
            if status != 0:
                raise CheckFailed(
                    f"{url} has no commit {commit}", "correct the pin in the stack, or the address"
                )
        if status != 0:
            raise _failed(url, output)

    def tree(self, commit: str) -> list[tuple[str, str, str]]:
        """Return mode, object id and path of everything in a commit, in git's order."""
        listing = self._read(["ls-tree", "-r", "-z", "--full-tree", commit])
        entries = []
        for line in listing.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            told, _, path = line.partition("\t")
            mode, _, object_id = told.split()
            entries.append((mode, object_id, path))
        return entries

    def seconds(self, commit: str) -> int:
        """When a commit was made, in seconds of Unix time."""
        return int(self._read(["log", "-1", "--format=%ct", commit]))

    @contextmanager
    def blobs(self) -> Iterator[Callable[[str], bytes]]:
        """Yield a function from an object id to its content: one git for all of them."""
        command = ["git", f"--git-dir={self.path}", "cat-file", "--batch"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            asked, given = child.stdin, child.stdout

            def content(object_id: str) -> bytes:
                asked.write(f"{object_id}\n".encode())
                asked.flush()
                _, _, size = given.readline().split()
                data = given.read(int(size))
                given.read(1)
                return data

            yield content
            asked.close()

    def _read(self, arguments: list[str]) -> bytes:
        command = ["git", f"--git-dir={self.path}", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def _git(self, arguments: list[str], on_line: OnLine) -> tuple[int, str]:
        command = ["git", *([] if arguments[0] == "init" else [f"--git-dir={self.path}"]), *arguments]
        try:
            return follow(command, _ENVIRONMENT, self.held, self.log, on_line)
        except FileNotFoundError as e:
            raise MissingRequirement("git is not installed", "apt-get install git") from e

    def _must(self, arguments: list[str], url: str, on_line: OnLine) -> None:
        status, output = self._git(arguments, on_line)
        if status != 0:
            raise _failed(url, output)


def archive(source: Source, target: Path, work: Path, held: int, on_line: OnLine) -> None:
    """Write the commit of a source, and those of its submodules, as ``target`` (.tar.gz).

    All of it lies in one folder, ``NAME-COMMIT``. The bytes depend on the commit alone. ``work`` is for the
    repositories, which are removed; ``target`` appears when it is whole.

    Raises:
        CheckFailed: no such commit, or the submodules are not those that the source names.
        MissingRequirement: a repository cannot be reached, or there is no git.
    """
    shutil.rmtree(work, ignore_errors=True)  # a call that was killed left it half made, or half removed
    work.mkdir(parents=True)
    part = work / target.name
    repositories = {}
    try:
        places = [("", source.url, source.commit)]
        places += [(f"{one.path}/", one.url, one.commit) for one in source.submodules]
        for number, (_, url, commit) in enumerate(places):
            repository = Repository(work / f"{number}.git", held, work / "git.log")
            repository.have(url, commit, on_line)
            repositories[commit] = repository
        main = repositories[source.commit]
        _same_submodules(source, main.tree(source.commit))
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for prefix, _, commit in sorted(places):
                top = f"{source.name}-{source.commit}/{prefix}"
                _add(tar, top, repositories[commit], commit, main.seconds(source.commit))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _add(tar: tarfile.TarFile, prefix: str, repository: Repository, commit: str, seconds: int) -> None:
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


def _same_submodules(source: Source, tree: list[tuple[str, str, str]]) -> None:
    """The commit itself says which submodules it has, and at which commits."""
    has = {
        path: object_id for mode, object_id, path in tree if mode == _COMMIT and path not in source.left_out
    }
    named = {one.path: one.commit for one in source.submodules}
    if has != named:
        said = ", ".join(f"{path} {commit}" for path, commit in has.items()) or "none"
        listed = ", ".join(f"{path} {commit}" for path, commit in named.items()) or "none"
        raise CheckFailed(
            f"{source.name} {source.commit} has the submodules {said}; the stack lists {listed}",
            "list them in the stack, or the paths of those that it is built without (left_out)",
        )


def _failed(url: str, output: str) -> MissingRequirement:
    if "No space left on device" in output:
        return MissingRequirement(
            f"fetching {url}: no space left", "free some, or name a folder on another disk"
        )
    lines = [line.strip() for line in output.splitlines() if line.startswith(("fatal: ", "error: ", "ssh: "))]
    return MissingRequirement(
        f"{url} cannot be fetched: {'; '.join(lines[:2]) or 'git gives no reason'}",
        "a mirror can stand in for it: git config --global url.MIRROR.insteadOf "
        f"{url.rpartition('/')[0] or url}/; then run the same command again, it goes on where it stopped",
    )
