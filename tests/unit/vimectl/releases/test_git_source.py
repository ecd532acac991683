"""Archives of commits, from real repositories on this machine."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError

from harness.git import commit, git, two_commits
from vimectl.releases import git_source

NOWHERE = "http://127.0.0.1:9/x"


@dataclass(frozen=True)
class Source:
    """A commit to archive, by default the first one of the repository."""

    url: str
    commit: str
    name: str = "trainer"
    left_out: tuple[str, ...] = ()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A repository on this machine; git has no other configuration."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    return Source(str(tmp_path / "trainer"), two_commits(tmp_path / "trainer"))


def make(source: Source, target: Path) -> Path:
    held = os.open(target.parent, os.O_RDONLY)
    try:
        git_source.archive(source, target, target.parent / "work", held, lambda line: None)
    finally:
        os.close(held)
    assert not (target.parent / "work").exists()
    return target


def test_archive_has_exactly_the_tree_of_the_commit(own: Source, tmp_path: Path) -> None:
    with tarfile.open(make(own, tmp_path / "a.tar.gz")) as tar:
        members = tar.getmembers()
        tar.extractall(tmp_path)
    unpacked = tmp_path / f"trainer-{own.commit}"
    assert (unpacked / "stamp").read_bytes() == b"$Format:%H$\n"
    commit(unpacked)
    tree = git(Path(own.url), "rev-parse", f"{own.commit}^{{tree}}")
    assert git(unpacked, "rev-parse", "HEAD^{tree}") == tree
    assert {(m.uid, m.gid, m.uname, m.mode & 0o022) for m in members if not m.issym()} == {(0, 0, "", 0)}
    assert {m.mtime for m in members} == {int(git(Path(own.url), "log", "-1", "--format=%ct", own.commit))}


def test_archive_bytes_depend_on_the_commit_only(own: Source, tmp_path: Path) -> None:
    first = sha256_file(make(own, tmp_path / "a.tar.gz"))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-local", own.url, str(clone))
    assert sha256_file(make(replace(own, url=str(clone)), tmp_path / "b.tar.gz")) == first


def test_archive_of_any_length_is_read_to_its_end(own: Source, tmp_path: Path) -> None:
    """Git pads an archive to 20 blocks, so the last read may leave some of them in the pipe."""
    for blocks in range(20):
        (Path(own.url) / "stamp").write_bytes(bytes(512 * blocks))
        commit(Path(own.url))
        head = git(Path(own.url), "rev-parse", "HEAD").decode().strip()
        assert make(replace(own, commit=head), tmp_path / f"{blocks}.tar.gz").stat().st_size > 0


def test_server_that_does_not_serve_commits_by_id(
    own: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before version 2 of the protocol a server only serves commits that a branch or tag names.
    (tmp_path / "config").write_text("[protocol]\n\tversion = 0\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    with tarfile.open(make(replace(own, url=f"file://{own.url}"), tmp_path / "a.tar.gz")) as tar:
        assert f"trainer-{own.commit}/stamp" in tar.getnames()


def test_submodules_that_the_stack_does_not_leave_out_are_an_error(own: Source, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", own.url, "third/part")
    git(outer / "third" / "part", "checkout", "-q", own.commit)
    pinned = replace(own, name="outer", url=str(outer), commit=commit(outer))
    without = replace(pinned, left_out=("third/part",))
    with tarfile.open(make(without, tmp_path / "c.tar.gz")) as tar:
        entries = {member.name.partition("/")[2]: member for member in tar.getmembers()[1:]}
    assert entries.keys() == {".gitmodules", "third/part"}
    assert (entries["third/part"].isdir(), entries["third/part"].linkname) == (True, own.commit)

    with pytest.raises(CheckFailed, match="has submodules, which are not archived: third/part"):
        make(pinned, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message", "hint"),
    [
        ({"commit": "0" * 40}, CheckFailed, f"has no commit {'0' * 40}", "correct the commit or the URL"),
        ({"url": NOWHERE}, MissingRequirement, f"{NOWHERE} cannot be fetched: fatal: ", "insteadOf http://"),
    ],
)
def test_commit_that_cannot_be_fetched_is_named(
    own: Source, tmp_path: Path, changes: dict[str, str], error: type[VimeError], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make(replace(own, **changes), tmp_path / "a.tar.gz")
    assert hint in caught.value.hint


def test_mirror_in_the_git_configuration_is_used(
    own: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = f'[url "{own.url}"]\n\tinsteadOf = https://unreachable.invalid/trainer\n'
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert make(replace(own, url="https://unreachable.invalid/trainer"), tmp_path / "a.tar.gz").is_file()


def test_missing_git(own: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingRequirement, match="git is not installed"):
        make(own, tmp_path / "a.tar.gz")


def test_leftovers_of_a_killed_call_are_removed(own: Source, tmp_path: Path) -> None:
    for left in ("config.lock", "objects/pack/a.pack"):  # partly created, partly removed
        path = tmp_path / "work" / "repository" / left
        path.parent.mkdir(parents=True)
        path.touch()
        assert make(own, tmp_path / "a.tar.gz").exists()
