"""The files for the repository's host: workflows, forms, hooks, and the pages for contributors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from harness import REPOSITORY
from harness.checkout import copy_checkout
from harness.git import commit, git
from vimectl.cli import run_cli
from vimectl.stacks.lock import read_lock
from vimectl.util.toml import read_toml

GITHUB = REPOSITORY / ".github"
WORKFLOWS = {path.stem: path for path in sorted((GITHUB / "workflows").glob("*.yml"))}
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
MANIFEST = REPOSITORY / ".pre-commit-hooks.yaml"
PAGES = ("CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md")
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
PROJECT = read_toml(REPOSITORY / "pyproject.toml")["project"]
# The programs of the runner's image, and of the shell.
PROGRAMS = {"apt-get", "bash", "env", "git", "ls", "make", "uv", "uvx"}
WORDS_OF_THE_SHELL = {"for", "do", "done", "#"}


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every job of the workflows with its name."""
    for name in WORKFLOWS:
        for job, content in workflow(name)["jobs"].items():
            yield f"{name}/{job}", content


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every step of the workflows with the name of its job."""
    for name, job in jobs():
        for step in job.get("steps", ()):
            yield name, step


def commands() -> Iterator[tuple[str, str]]:
    """Yield every command of the workflows with the name of its job."""
    for name, step in steps():
        for line in step.get("run", "").splitlines():
            for command in line.split("&&"):
                yield name, command.strip()


def make_targets() -> set[str]:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w./-]+):(?!=)", text, re.MULTILINE))


def pythons() -> list[str]:
    """Return the versions of Python that the package is for, the oldest first."""
    found = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"]
    ]
    versions = [match[1] for match in found if match]
    return sorted(versions, key=lambda version: int(version.partition(".")[2]))


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_actions_are_pinned_by_commit_with_their_version() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS.values():
        for action, pin in re.findall(r"uses: ([\w-]+/[\w/-]+)@(.*)", path.read_text(encoding="utf-8")):
            pins.setdefault(action, set()).add(pin)
    assert len(pins) > 5
    wrong = [
        pin
        for found in pins.values()
        for pin in found
        if not re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", pin)
    ]
    assert wrong == []
    assert {action: found for action, found in pins.items() if len(found) > 1} == {}


def test_workflows_read_only_unless_a_job_says_more() -> None:
    for name in WORKFLOWS:
        assert workflow(name)["permissions"] == {"contents": "read"}, name
    more = {name: job["permissions"] for name, job in jobs() if "permissions" in job}
    assert more == {
        "docs/publish": {"pages": "write", "id-token": "write"},
        "new-releases/vllm-ascend": {"contents": "read", "issues": "write"},
        "release/publish": {"id-token": "write"},
    }


def test_jobs_with_permissions_to_publish_run_no_code_of_the_repository() -> None:
    for name, step in steps():
        if name.endswith("/publish"):
            assert "run" not in step, name
            assert "actions/checkout" not in step["uses"], name


def test_commands_of_workflows_contain_no_expressions() -> None:
    assert [line for line in commands() if "${{" in line[1]] == []


def test_commands_of_workflows_exist() -> None:
    found = [command.split() for _, command in commands()]
    programs = {words[0] for words in found} - WORDS_OF_THE_SHELL
    assert {"make", "bash", "uvx", ".bootstrap/bin/python"} <= programs
    assert programs <= PROGRAMS | {".bootstrap/bin/python"}
    targets = {words[1] for words in found if words[0] == "make"}
    assert {"lint", "docs", ".bootstrap/ready"} <= targets <= make_targets()
    files = [word for words in found for word in words if re.match(r"(requirements|scripts|\.ci)/", word)]
    assert len(files) > 3
    assert [name for name in files if not (REPOSITORY / name).is_file()] == []


def test_commands_of_workflows_are_valid_for_bash() -> None:
    for name, step in steps():
        if text := step.get("run"):
            done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True)
            assert done.returncode == 0, (name, done.stderr)


def test_workflows_use_the_tested_uv() -> None:
    used = {step["with"]["version"] for _, step in steps() if "setup-uv@" in step.get("uses", "")}
    assert used == {read_lock(REPOSITORY / "requirements" / "uv.txt")["uv"].version}


def test_tool_is_tested_on_the_versions_of_python_that_the_package_is_for() -> None:
    assert workflow("tests")["jobs"]["tool"]["strategy"]["matrix"]["python"] == pythons()
    every = SpecifierSet(PROJECT["requires-python"])
    minors = [f"3.{minor}" for minor in range(int(pythons()[-1].partition(".")[2]) + 1)]
    assert [version for version in minors if f"{version}.0" in every] == pythons()
    oldest_and_newest = [pythons()[0], pythons()[-1]]
    tox = read_toml(REPOSITORY / "tox.toml")["env_list"]
    assert tox == [f"py{version.replace('.', '')}" for version in oldest_and_newest]
    (used,) = (step["env"]["PYTHONS"] for _, step in steps() if "PYTHONS" in step.get("env", {}))
    assert used.split() == oldest_and_newest


@pytest.mark.slow
@pytest.mark.needs("network")
def test_release_is_built_checked_and_used_for_its_tag_only(tmp_path: Path) -> None:
    source = copy_checkout(tmp_path / "source")
    build, *others = (step["run"] for step in workflow("release")["jobs"]["build"]["steps"] if "run" in step)
    assert len(others) == 3
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": programs, "PYTHONS": sys.executable}
    variables.pop("PYTHONPATH", None)

    def run(script: str, tag: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-e", "-o", "pipefail", "-c", script]
        environment = {**variables, "GITHUB_REF_NAME": tag}
        return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)

    assert (done := run(build, "")).returncode == 0, done.stderr
    (wheel,) = source.glob("dist/*.whl")
    version = wheel.name.split("-")[1]
    for script in others:
        assert (done := run(script, f"v{version}")).returncode == 0, done.stderr
    assert f"vimectl {version}" in done.stdout
    assert run(others[0], "v0.0.1").returncode != 0


def test_forms_ask_what_the_doctor_says(capsys: pytest.CaptureFixture[str]) -> None:
    asked = {}
    for path in FORMS:
        for field in yaml.safe_load(path.read_text(encoding="utf-8"))["body"]:
            if field.get("id") == "doctor":
                assert field["attributes"]["label"] == "Output of `vimectl doctor --text`"
                asked[path.stem] = field.get("validations", {}).get("required", False)
    assert asked == {"bug": True, "release": False}
    assert run_cli(["doctor", "--help"]) == 0
    assert "--text" in capsys.readouterr().out


def test_links_to_the_host_are_links_to_this_repository() -> None:
    urls = PROJECT["urls"]
    own = (f"{urls['Source']}/", urls["Documentation"])
    assert f"{urls['Source']}/security/advisories/new" in (REPOSITORY / "SECURITY.md").read_text(
        encoding="utf-8"
    )
    for path in (*FORMS, GITHUB / "ISSUE_TEMPLATE" / "config.yml", *(REPOSITORY / page for page in PAGES)):
        links = re.findall(r"https://[^\s)]+(?:github)[^\s)]+", path.read_text(encoding="utf-8"))
        assert [link for link in links if not f"{link}/".startswith(own)] == [], path


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    links = LINK.findall(text)
    assert links
    for path, anchor in links:
        if not path.startswith("https://"):
            target = (REPOSITORY / path).read_text(encoding="utf-8") if path else text
            assert not anchor or anchor in anchors(target), (path, anchor)


def test_paths_and_make_targets_for_contributors_exist() -> None:
    words = re.findall(r"`([^`\s]+)`", (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    paths = [word for word in words if "/" in word and not re.search(r"[<>:(]", word)]
    assert len(paths) > 10
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    targets = re.findall(r"`?\bmake ([\w-]+)", (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert {"run", "lint", "docs", "test"} <= set(targets) <= make_targets()


def test_hook_takes_patches_and_series(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    takes = re.compile(hook["files"])
    series = REPOSITORY / "patches" / "vllm" / "0.22.1"
    names = [path.relative_to(REPOSITORY).as_posix() for path in sorted(series.iterdir())]
    taken = [name for name in names if takes.search(name)]
    assert {Path(name).suffix for name in taken} == {".patch", ""}
    program, *arguments = hook["entry"].split()
    assert program in PROJECT["scripts"]
    assert run_cli([*arguments, *(str(REPOSITORY / name) for name in taken)]) == 0
    bad = tmp_path / "bad.patch"
    bad.write_text("--- a/x\n+++ b/x\n@@ -1,2 +1,1 @@\n-a\n+b\n", encoding="utf-8")
    assert run_cli([*arguments, str(bad)]) == 1


@pytest.mark.exhaustive
@pytest.mark.needs("network")
def test_pre_commit_refuses_patches_that_cannot_be_applied(tmp_path: Path) -> None:
    hooks, project = copy_checkout(tmp_path / "hooks"), tmp_path / "project"
    commit_id = commit(hooks)
    shutil.copytree(REPOSITORY / "patches" / "vllm" / "0.22.1", project)
    git(project, "init", "-q", "--template=")
    hook = {"repo": str(hooks), "rev": commit_id, "hooks": [{"id": "vimectl-patch-lint"}]}
    (project / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [hook]}), encoding="utf-8")
    git(project, "add", ".")

    def lint() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "uv", "tool", "run", "pre-commit==4.7.0", "run"]
        environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "pre-commit")}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

    done = lint()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    first = min(project.glob("*.patch"))
    first.write_text(
        re.sub(r"@@ -(\d+),\d+", r"@@ -\1,99", first.read_text(encoding="utf-8")), encoding="utf-8"
    )
    git(project, "add", ".")
    done = lint()
    assert done.returncode == 1
    assert f"{first.name}:" in done.stdout
    assert "hunk-count" in done.stdout
