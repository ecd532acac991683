"""Archive a repository at one commit, reproducibly; ``commit_archive`` describes and checks the archive."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.releases import commit_archive
from vimectl.util.secrets import redact
from vimectl.util.subprocess import OnLine, run_logged

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
# Overrides .gitattributes in the repository: `git archive` then leaves out no file and changes no byte.
_ATTRIBUTES = "* -export-ignore -export-subst -text -ident -filter -working-tree-encoding\n"


class CommitSource(Protocol):
    """A pinned commit of a repository. ``left_out`` are the paths of its submodules, not archived."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def commit(self) -> str: ...
    @property
    def left_out(self) -> Collection[str]: ...


def archive(source: CommitSource, target: Path, work: Path, lock_fd: int, on_line: OnLine) -> None:
    """Write the commit of a source as ``target`` (.tar.gz), without submodules.

    The bytes only depend on the commit. ``work`` is for the repository and is removed; ``target`` is created
    atomically.

    Raises:
        CheckFailed: there is no such commit, or it has submodules that are not in ``left_out``.
        MissingRequirement: a repository cannot be reached, or git is missing.
    """
    shutil.rmtree(work, ignore_errors=True)  # of a call that was killed
    work.mkdir(parents=True)
    part = work / target.name
    repository = _BareRepository(work / "repository", work / "git.log", lock_fd, on_line)
    try:
        repository.fetch(source.url, source.commit)
        submodules = repository.submodules(source.commit)
        _check_submodules(source, list(submodules))
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=commit_archive.FORMAT) as tar,
        ):
            repository.append_to(tar, source.commit, f"{source.name}-{source.commit}", submodules)
        with part.open("rb") as file:
            commit_archive.check_archive(file, target.name, source.commit)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class _BareRepository:
    """A bare repository for the commits. ``log``, ``lock_fd`` and ``on_line`` are as in ``run_logged``."""

    path: Path
    log: Path
    lock_fd: int
    on_line: OnLine

    def fetch(self, url: str, commit: str) -> None:
        """Fetch one commit without its history.

        Raises:
            CheckFailed: the repository has no such commit.
            MissingRequirement: it cannot be reached, or git is missing.
        """
        status, output = self._git("init", "--quiet", "--bare")
        if status == 0:
            (self.path / "info" / "attributes").write_text(_ATTRIBUTES, encoding="ascii")
            status, output = self._git("fetch", "--progress", "--depth=1", "--", url, commit)
        if status != 0 and any(sign in output for sign in _NOT_BY_ID):
            everything = "+refs/*:refs/fetched/*"
            status, output = self._git("fetch", "--progress", "--no-tags", "--", url, everything)
            if status == 0 and self._git("cat-file", "-e", f"{commit}^{{commit}}")[0] != 0:
                raise CheckFailed(
                    f"{url} has no commit {commit}", "correct the commit or the URL in the stack"
                )
        if status != 0:
            raise _fetch_error(url, output)

    def submodules(self, commit: str) -> dict[str, str]:
        """Return the paths of the submodules of a commit, each with its commit."""
        listing = os.fsdecode(self._read("ls-tree", "-r", "-z", "--full-tree", commit))
        entries = [line.partition("\t") for line in listing.split("\0")[:-1]]
        return {path: entry.split()[2] for entry, _, path in entries if entry.split()[1] == "commit"}

    def append_to(
        self, tar: tarfile.TarFile, commit: str, folder: str, submodules: Mapping[str, str]
    ) -> None:
        """Append the object and the files of a commit to an archive, with the time of the commit."""
        time = int(self._read("show", "--no-patch", "--format=%ct", commit))
        name = commit_archive.commit_object_name(folder)
        commit_archive.add_file(tar, name, self._read("cat-file", "commit", commit), time)
        command = ["git", f"--git-dir={self.path}", "-c", "tar.umask=022", "archive", "--format=tar"]
        with (
            subprocess.Popen([*command, f"--prefix={folder}/", commit], stdout=subprocess.PIPE) as git,
            tarfile.open(fileobj=git.stdout, mode="r|") as commit_tar,
        ):
            for entry in commit_tar:
                if entry.isdir():
                    entry.linkname = submodules.get(entry.name.partition("/")[2], "")
                    if not entry.linkname:
                        continue
                entry.uname, entry.gname, entry.pax_headers = "", "", {}
                tar.addfile(entry, commit_tar.extractfile(entry) if entry.isreg() else None)
            if git.stdout:
                git.stdout.read()  # the padding after the last file: without a reader, git fails
        if git.returncode != 0:
            raise CheckFailed(f"git archive {commit} failed: exit status {git.returncode}", f"see {self.log}")

    def _read(self, *arguments: str) -> bytes:
        command = ["git", f"--git-dir={self.path}", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def _git(self, *arguments: str) -> tuple[int, str]:
        command = ["git", f"--git-dir={self.path}", *arguments]
        try:
            return run_logged(command, self.log, self.on_line, _ENVIRONMENT, self.lock_fd)
        except FileNotFoundError as e:
            raise MissingRequirement("git is not installed", "apt-get install git") from e


def _check_submodules(source: CommitSource, found: Sequence[str]) -> None:
    """Check that the stack knows of every submodule that the archive lacks."""
    unknown = sorted(set(found) - set(source.left_out))
    if unknown:
        raise CheckFailed(
            f"{source.name} {source.commit} has submodules, which are not archived: {', '.join(unknown)}",
            "if it can be built without them, list them in left_out in the stack, each with the reason",
        )


def _fetch_error(url: str, output: str) -> MissingRequirement:
    if "No space left on device" in output:
        return MissingRequirement(
            f"fetching {url}: no space left", "free some space, or name a folder on another disk"
        )
    lines = [line.strip() for line in output.splitlines() if line.startswith(("fatal: ", "error: ", "ssh: "))]
    return MissingRequirement(
        # The user's configuration may have replaced the URL by one with a password.
        f"{url} cannot be fetched: {redact('; '.join(lines[:2])) or 'git gives no reason'}",
        "use a mirror: git config --global url.MIRROR.insteadOf "
        f"{url.rpartition('/')[0] or url}/; then run the same command again, it resumes where it stopped",
    )
