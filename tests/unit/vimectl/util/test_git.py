from __future__ import annotations

import os
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.git import commit
from harness.git import git as run_git
from vimectl.cli import run_cli
from vimectl.doctor.facts.packages import read_checkout
from vimectl.util import git
from vimectl.util.host import Host

# Settings with which a repository makes git run a program; {0} is the program.
SETTINGS = {
    "file monitor": "[core]\nfsmonitor = {0}\n",
    "hooks": "[core]\nhooksPath = {1}\n",
    "filter": '[filter "x"]\nclean = {0}\nsmudge = {0}\nrequired = true\n',
    "filter process": '[filter "x"]\nprocess = {0}\nrequired = true\n',
    "filter with dots": '[filter "a.b c"]\nclean = {0}\n',
    "external diff": "[diff]\nexternal = {0}\n",
    "diff driver": '[diff "x"]\ncommand = {0}\ntextconv = {0}\n',
    "pager": "[core]\npager = {0}\n[pager]\ndiff = {0}\nlog = {0}\nrev-list = {0}\n",
    "signatures": '[log]\nshowSignature = true\n[gpg]\nprogram = {0}\n[gpg "ssh"]\nprogram = {0}\n',
    "transport": "[core]\nsshCommand = {0}\ngitProxy = {0}\nrepositoryformatversion = 1\n[extensions]\n"
    'partialClone = origin\n[remote "origin"]\nurl = ext::{0}\npromisor = true\n'
    '[protocol "ext"]\nallow = always\n',
    "ssh": "[core]\nsshCommand = {0}\nrepositoryformatversion = 1\n[extensions]\npartialClone = origin\n"
    '[remote "origin"]\nurl = ssh://localhost/x\npromisor = true\n[protocol]\nallow = always\n',
    "alias": "[alias]\ndiff = !{0}\nls-files = !{0}\nrev-parse = !{0}\ncat-file = !{0}\n",
    "editor and credentials": "[core]\neditor = {0}\naskPass = {0}\n[credential]\nhelper = !{0}\n",
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a work tree of a package with two commits and an edit."""
    work = tmp_path / "work"
    (work / "toy").mkdir(parents=True)
    (work / "toy" / "__init__.py").write_text("x = 1\n")
    (work / "toy" / "lost.py").write_text("lost = 1\n")
    (work / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (work / ".gitattributes").write_text(
        "*.py filter=x diff=x\n*.txt filter=a.b=c\n__init__.py filter=a.b\\ c\n"
    )
    commit(work)
    (work / "toy" / "__init__.py").write_text("x = 2\n")
    commit(work)
    (work / "toy" / "__init__.py").write_text("x = 3\n")
    return work


@pytest.mark.parametrize("name", SETTINGS)
def test_no_command_runs_a_program_of_a_repository(
    name: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran, program, hooks = tmp_path / "ran", tmp_path / "program", tmp_path / "hooks"
    program.write_text(f"#!/bin/sh\necho run >> {ran}\ncat\n")
    program.chmod(0o755)
    hooks.mkdir()
    for hook in ("post-index-change", "reference-transaction", "fsmonitor-watchman"):
        (hooks / hook).symlink_to(program)
    lost = run_git(work, "rev-parse", "HEAD:toy/lost.py").decode().strip()
    with (work / ".git" / "config").open("a") as config:
        config.write(SETTINGS[name].format(program, hooks))
    if "partialClone" in SETTINGS[name]:
        (work / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    os.utime(work / "toy" / "lost.py", (1, 1))  # git compares the content again
    project = tmp_path / "project"
    project.mkdir()
    (project / "vimectl.toml").write_text('[patches]\ntoy = []\n[targets]\ntoy = "../work"\n')
    monkeypatch.chdir(project)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    patch = tmp_path / "edit.patch"
    patch.write_text("--- a/toy/lost.py\n+++ b/toy/lost.py\n@@ -1 +1 @@\n-lost = 1\n+lost = 2\n")
    commands = [
        ["save", "edit", "toy", "-m", "edit"],
        ["save", "last", "toy", "--from-commit", "HEAD"],
        *([command, "toy"] for command in ("list", "status", "verify", "diff", "revert", "apply")),
        ["drop", "edit", "toy"],
        [
            "import",
            str(patch),
            "--package",
            "toy",
            "--commit",
            "HEAD",
            "--against",
            str(work),
            "--out",
            "new",
        ],
        ["port", "toy", "--from", "HEAD", "--to", "HEAD", "--series", "patches/toy", "--source", str(work)],
        ["lint", str(patch), "--against", str(work)],
    ]
    codes = [run_cli(["patch", *words]) for words in commands]
    assert read_checkout(Host(), str(work)) or name in ("transport", "ssh")
    assert not ran.exists()
    assert codes[0] == 0 or "partialClone" in SETTINGS[name]
    assert "--debug" not in capsys.readouterr().err


def test_program_of_the_settings_runs_without_this_module(work: Path, tmp_path: Path) -> None:
    run_git(work, "config", "core.fsmonitor", f"touch {tmp_path / 'ran'}; false")
    run_git(work, "status")
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    assert git.run(work, "status", work_tree=True).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_filter_that_cannot_be_turned_off_is_refused(work: Path) -> None:
    run_git(work, "config", "filter.a.b=c.clean", "false")
    with pytest.raises(UsageError, match=r"filter 'a\.b=c' cannot be disabled"):
        git.run(work, "status", work_tree=True)


@pytest.mark.parametrize("name", ["HEAD", "config", "index", "info/exclude"])
def test_named_pipe_in_a_repository_ends_with_a_message(
    name: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "TIMEOUT_SECONDS", 2.0)
    path = work / ".git" / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(UsageError, match="work: git did not finish within 2 s"):
        git.run(work, "ls-files", "--others", "--exclude-standard", work_tree=True)
