"""Archives of commits, from real repositories on this machine."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError

from harness.git import commit, git
from harness.images.user_stack import UserStack
from vimectl.images import git_source
from vimectl.images.plan import ImageSource

NOWHERE = "http://127.0.0.1:9/x"


def make(source: ImageSource, target: Path) -> Path:
    held = os.open(target.parent, os.O_RDONLY)
    try:
        git_source.archive(source, target, target.parent / "work", held, lambda line: None)
    finally:
        os.close(held)
    assert not (target.parent / "work").exists()
    return target


def source(own: UserStack, **changes: str) -> ImageSource:
    fields = {"name": "trainer", "url": str(own.repository), "commit": own.commit} | changes
    return ImageSource(kind="git", reason="", **fields)


def test_archive_has_exactly_the_tree_of_the_commit(own: UserStack, tmp_path: Path) -> None:
    with tarfile.open(make(source(own), tmp_path / "a.tar.gz")) as tar:
        members = tar.getmembers()
        tar.extractall(tmp_path)
    unpacked = tmp_path / f"trainer-{own.commit}"
    assert (unpacked / "stamp").read_bytes() == b"$Format:%H$\n"
    commit(unpacked)
    tree = git(own.repository, "rev-parse", f"{own.commit}^{{tree}}")
    assert git(unpacked, "rev-parse", "HEAD^{tree}") == tree
    assert {(m.uid, m.gid, m.uname, m.mode & 0o022) for m in members if not m.issym()} == {(0, 0, "", 0)}
    assert {m.mtime for m in members} == {int(git(own.repository, "log", "-1", "--format=%ct", own.commit))}


def test_archive_bytes_depend_on_the_commit_only(own: UserStack, tmp_path: Path) -> None:
    first = sha256_file(make(source(own), tmp_path / "a.tar.gz"))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-local", str(own.repository), str(clone))
    assert sha256_file(make(source(own, url=str(clone)), tmp_path / "b.tar.gz")) == first


def test_archive_of_any_length_is_read_to_its_end(own: UserStack, tmp_path: Path) -> None:
    """Git pads an archive to 20 blocks, so the last read may leave some of them in the pipe."""
    for blocks in range(20):
        (own.repository / "stamp").write_bytes(bytes(512 * blocks))
        commit(own.repository)
        head = git(own.repository, "rev-parse", "HEAD").decode().strip()
        assert make(source(own, commit=head), tmp_path / f"{blocks}.tar.gz").stat().st_size > 0


def test_server_that_does_not_serve_commits_by_id(
    own: UserStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before version 2 of the protocol a server only serves commits that a branch or tag names.
    (tmp_path / "config").write_text("[protocol]\n\tversion = 0\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    with tarfile.open(make(source(own, url=f"file://{own.repository}"), tmp_path / "a.tar.gz")) as tar:
        assert f"trainer-{own.commit}/stamp" in tar.getnames()


def test_submodules_that_the_stack_does_not_leave_out_are_an_error(own: UserStack, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(
        outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(own.repository), "third/part"
    )
    git(outer / "third" / "part", "checkout", "-q", own.commit)
    pinned = source(own, name="outer", url=str(outer), commit=commit(outer))
    without = replace(pinned, left_out=("third/part",))
    with tarfile.open(make(without, tmp_path / "c.tar.gz")) as tar:
        assert [name.partition("/")[2] for name in tar.getnames()] == [".gitmodules"]

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
    own: UserStack, tmp_path: Path, changes: dict[str, str], error: type[VimeError], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make(source(own, **changes), tmp_path / "a.tar.gz")
    assert hint in caught.value.hint


def test_mirror_in_the_git_configuration_is_used(
    own: UserStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = f'[url "{own.repository}"]\n\tinsteadOf = https://unreachable.invalid/trainer\n'
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert make(source(own, url="https://unreachable.invalid/trainer"), tmp_path / "a.tar.gz").is_file()


def test_missing_git(own: UserStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingRequirement, match="git is not installed"):
        make(source(own), tmp_path / "a.tar.gz")


def test_leftovers_of_a_killed_call_are_removed(own: UserStack, tmp_path: Path) -> None:
    for left in ("config.lock", "objects/pack/a.pack"):  # partly created, partly removed
        path = tmp_path / "work" / "repository" / left
        path.parent.mkdir(parents=True)
        path.touch()
        assert make(source(own), tmp_path / "a.tar.gz").exists()
