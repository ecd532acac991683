"""Archives of commits, from real repositories on this machine."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from harness.git import commit, git
from harness.images.user_stack import UserStack
from vimectl.images import git_source
from vimectl.images.plan import ImageSource
from vimectl.stacks.schema import Submodule


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


def test_archive_has_exactly_the_files_of_the_commit(own: UserStack, tmp_path: Path) -> None:
    with tarfile.open(make(source(own), tmp_path / "a.tar.gz")) as tar:
        members = {member.name.partition("/")[2]: member for member in tar}
        assert {member.name.partition("/")[0] for member in members.values()} == {f"trainer-{own.commit}"}
        assert set(members) == {".gitattributes", "build.sh", "link", "package/__init__.py", "stamp"}
        read = {path: tar.extractfile(member).read() for path, member in members.items() if member.isfile()}
    assert read["package/__init__.py"] == b"version = 1\n"
    assert read["stamp"] == b"$Format:%H$\n"
    assert (members["build.sh"].mode, members["stamp"].mode) == (0o755, 0o644)
    assert members["link"].linkname == "package/__init__.py"
    assert {(m.uid, m.gid, m.uname) for m in members.values()} == {(0, 0, "")}
    assert {m.mtime for m in members.values()} == {
        int(git(own.repository, "log", "-1", "--format=%ct", own.commit))
    }


def test_unpacked_archive_has_the_tree_of_the_commit(own: UserStack, tmp_path: Path) -> None:
    with tarfile.open(make(source(own), tmp_path / "a.tar.gz")) as tar:
        tar.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / f"trainer-{own.commit}"
    git(unpacked, "init", "-q")
    git(unpacked, "add", "--all", "--force")
    assert git(unpacked, "write-tree") == git(own.repository, "rev-parse", f"{own.commit}^{{tree}}")


def test_archive_bytes_depend_on_the_commit_only(own: UserStack, tmp_path: Path) -> None:
    first = sha256_file(make(source(own), tmp_path / "a.tar.gz"))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-local", str(own.repository), str(clone))
    assert sha256_file(make(source(own, url=str(clone)), tmp_path / "b.tar.gz")) == first


def test_server_that_does_not_serve_commits_by_id(
    own: UserStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before version 2 of the protocol a server only serves commits that a branch or tag names.
    (tmp_path / "config").write_text("[protocol]\n\tversion = 0\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    with tarfile.open(make(source(own, url=f"file://{own.repository}"), tmp_path / "a.tar.gz")) as tar:
        assert f"trainer-{own.commit}/stamp" in tar.getnames()


def test_submodule_is_archived(own: UserStack, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(
        outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(own.repository), "third/part"
    )
    git(outer / "third" / "part", "checkout", "-q", own.commit)
    pinned = source(own, name="outer", url=str(outer), commit=commit(outer))
    inner = Submodule(path="third/part", url=str(own.repository), commit=own.commit)
    with_it = replace(pinned, submodules=(inner,))
    with tarfile.open(make(with_it, tmp_path / "a.tar.gz")) as tar:
        name = f"outer-{pinned.commit}/third/part/package/__init__.py"
        assert tar.extractfile(name).read() == b"version = 1\n"

    without = replace(pinned, left_out=("third/part",))
    with tarfile.open(make(without, tmp_path / "c.tar.gz")) as tar:
        assert [name.partition("/")[2] for name in tar.getnames()] == [".gitmodules"]

    with pytest.raises(
        CheckFailed, match=f"has the submodules third/part {own.commit}; the stack lists none"
    ):
        make(pinned, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_unknown_commit(own: UserStack, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=f"has no commit {'0' * 40}"):
        make(source(own, commit="0" * 40), tmp_path / "a.tar.gz")


def test_unreachable_repository(own: UserStack, tmp_path: Path) -> None:
    with pytest.raises(
        MissingRequirement, match=r"http://127\.0\.0\.1:9/x cannot be fetched: fatal: "
    ) as error:
        make(source(own, url="http://127.0.0.1:9/x"), tmp_path / "a.tar.gz")
    assert "insteadOf http://127.0.0.1:9/" in error.value.hint


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
