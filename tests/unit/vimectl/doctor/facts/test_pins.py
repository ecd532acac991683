"""Packages that are pinned to a commit: from where they are imported, and at which version and commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.git import commit, git
from vimectl.doctor.facts.pins import PinnedSource, read_head, read_pinned_source
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.schema import Stack
from vimectl.util.git import command
from vimectl.util.host import CommandResult, Host, refuse_command

STACK = load_stack("ascend-0.22")
PIN = STACK.commits["megatron-lm"].commit
OTHER = "a" * 40
INFO = "s/megatron_core-0.16.0rc0.dist-info"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir()
    return tmp_path


def read(root: Path, stack: Stack = STACK, **environment: str) -> PinnedSource | None:
    host = Host(root, environment, refuse_command, package_directories=("/s",))
    return read_pinned_source(host, stack, "megatron-lm")


def checkout(root: Path, head: str = OTHER, version: str = "16") -> None:
    core = root / "m/megatron/core"
    core.mkdir(parents=True)
    (core / "package_info.py").write_text(
        f"MAJOR = 0\nMINOR = {version}\nPATCH = 0\nPRE_RELEASE = 'rc0'\n# Use the following formatting: x\n"
    )
    (root / "m/.git").mkdir()
    (root / "m/.git/HEAD").write_text(f"{head}\n")


def installed(root: Path, direct_url: object = None) -> None:
    (root / INFO).mkdir()
    if direct_url:
        (root / INFO / "direct_url.json").write_text(json.dumps(direct_url))


def test_nothing_is_installed(root: Path) -> None:
    assert read(root) is None


def test_wheel_has_a_version_and_no_commit(root: Path) -> None:
    installed(root)
    assert read(root) == PinnedSource("0.16.0rc0", "")


def test_commit_of_an_install_from_git_is_recorded(root: Path) -> None:
    installed(root, {"url": "https://example.org/m", "vcs_info": {"vcs": "git", "commit_id": PIN}})
    assert read(root) == PinnedSource("0.16.0rc0", PIN)


@pytest.mark.parametrize("record", [{"vcs_info": {"commit_id": 3}}, {"vcs_info": []}, ["x"], None])
def test_malformed_record_is_no_commit(root: Path, record: object) -> None:
    installed(root, record)
    assert read(root) == PinnedSource("0.16.0rc0", "")


def test_editable_install_is_at_the_head_of_its_checkout(root: Path) -> None:
    checkout(root, PIN)
    installed(root, {"url": "file:///m", "dir_info": {"editable": True}})
    assert read(root) == PinnedSource("0.16.0rc0", PIN, "/m", "editable")


def test_pythonpath_precedes_what_is_installed(root: Path) -> None:
    checkout(root, version="12")
    installed(root)
    found = read(root, PYTHONPATH="/x:/m")
    assert found == PinnedSource("0.12.0rc0", OTHER, "/m", "PYTHONPATH")


@pytest.mark.parametrize("key", ["megatron-lm", "megatron-core"])
def test_target_of_the_project_precedes_everything(root: Path, key: str) -> None:
    checkout(root, PIN)
    installed(root)
    (root / "p/megatron/core").mkdir(parents=True)
    stack = STACK.model_copy(update={"targets": {key: "/m"}})
    assert read(root, stack, PYTHONPATH="/p") == PinnedSource("0.16.0rc0", PIN, "/m", "[targets]")
    gone = STACK.model_copy(update={"targets": {key: "/gone"}})
    assert read(root, gone) == PinnedSource("", "", "/gone", "[targets]", present=False)


def test_own_commits_on_top_of_the_pinned_one_are_recognized(root: Path) -> None:
    checkout(root)
    asked = []

    def answer(argv: object, timeout: float) -> CommandResult:
        asked.append(argv)
        return CommandResult(0)

    host = Host(root, {"PYTHONPATH": "/m"}, answer, package_directories=("/s",))
    found = read_pinned_source(host, STACK, "megatron-lm")
    assert found is not None
    assert found.descends
    words = command("/m", any_owner=True)
    assert asked == [[*words, "merge-base", "--is-ancestor", PIN, OTHER]]


def test_head_of_real_checkouts_is_read_from_files(tmp_path: Path) -> None:
    host, tree = Host(), tmp_path / "tree"
    tree.mkdir()
    assert read_head(host, str(tree)) == ""
    (tree / "file").touch()
    head = commit(tree)
    assert read_head(host, str(tree)) == head
    git(tree, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    assert read_head(host, str(tmp_path / "side")) == head
    git(tree, "pack-refs", "--all")
    assert read_head(host, str(tree)) == head
    git(tree, "checkout", "-q", "--detach")
    assert read_head(host, str(tree)) == head
