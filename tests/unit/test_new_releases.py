"""scripts/new_releases.py against a local index and a stand-in for GitHub's command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY
from harness.patches.index_server import Index, make_sdist, serving

sys.path.insert(0, str(REPOSITORY / "scripts"))
import new_releases

# Keeps issues in a file, and behaves as `gh` does with the options that the script uses.
GH = f"""#!{sys.executable}
import json, os, sys
kind, action, *rest = sys.argv[1:]
options = dict(one[2:].partition("=")[::2] for one in rest if one.startswith("--"))
store = os.environ["ISSUES"]
issues = json.load(open(store))
if (kind, action) == ("issue", "list"):
    print(json.dumps([one for one in issues if options["label"] in one["labels"]]))
elif (kind, action) == ("issue", "create"):
    issues.append({{"number": len(issues) + 1, "title": options["title"], "state": "OPEN",
                   "body": sys.stdin.read().replace("\\n", "\\r\\n"), "labels": [options["label"]]}})
    print(f"https://example.org/issues/{{len(issues)}}")
elif (kind, action) == ("issue", "edit"):
    issues[int(rest[0]) - 1]["body"] = sys.stdin.read()
elif (kind, action) != ("label", "create"):
    sys.exit(f"unknown command: {{sys.argv[1:]}}")
json.dump(issues, open(store, "w"))
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Run a package index, which pip's configuration names."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as running:
        monkeypatch.setenv("PIP_INDEX_URL", running.url)
        yield running


@pytest.fixture
def issues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file with the issues on the host."""
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH, encoding="utf-8")
    gh.chmod(0o755)
    store = tmp_path / "issues.json"
    store.write_text("[]", encoding="utf-8")
    monkeypatch.setenv("PATH", f"{gh.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ISSUES", str(store))
    return store


def serve(index: Index, *versions: str) -> None:
    for version in versions:
        name = f"vllm_ascend-{version}"
        index.files[f"{name}.tar.gz"] = make_sdist(
            name, {"PKG-INFO": f"Name: vllm-ascend\nVersion: {version}\n".encode()}
        )


def body(text: str) -> str:
    return f"{new_releases.MARK}\n{text}\n"


def change(store: Path, **values: Any) -> None:
    (one,) = json.loads(store.read_text())
    store.write_text(json.dumps([one | values]), encoding="utf-8")


def test_releases_without_a_stack_get_names_that_are_free(index: Index) -> None:
    serve(index, "0.17.0rc1", "0.30.0rc2", "0.30.0", "0.99.0rc1", "0.99.0")
    assert new_releases.missing_releases() == {
        "0.30.0": "ascend-0.30.0",
        "0.99.0rc1": "ascend-0.99",
        "0.99.0": "ascend-0.99.0",
    }


def test_release_whose_documents_are_incomplete_is_reported(index: Index, tmp_path: Path) -> None:
    serve(index, "0.99.0")
    text = new_releases.port("0.99.0", "ascend-0.99", tmp_path / "out")
    assert text.startswith(new_releases.MARK)
    assert "vimectl stack new ascend-0.99 --vllm-ascend 0.99.0" in text
    assert "does not state: vllm, python" in text
    assert str(tmp_path) not in text


def test_index_that_fails_is_no_fault_of_the_release(index: Index, tmp_path: Path) -> None:
    index.failures = [500] * 99
    with pytest.raises(SystemExit, match="exit code 3"):
        new_releases.port("0.99.0", "ascend-0.99", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.needs("network")
def test_conflicts_are_reported_by_patch_and_file(tmp_path: Path) -> None:
    text = new_releases.port("0.13.0", "mine", tmp_path / "out")
    assert "| vllm | 0.13.0 | 0.20.2 | conflict |" in text
    rotary = "vllm/model_executor/layers/rotary_embedding/common.py"
    assert f"| vllm | 0001-rotary-without-flash-attn | {rotary} | offset |" in text
    worker = "vllm_ascend/worker/worker.py"
    assert f"| vllm-ascend | 0001-colocated-start-up | {worker} | conflict | 2 places" in text


def test_text_of_a_release_cannot_leave_its_code_block() -> None:
    assert new_releases._code("a\n```\n@you").splitlines() == ["```text", "a", "'''", "@you", "```"]


def test_release_has_one_issue_which_is_updated(issues: Path) -> None:
    assert new_releases.publish("0.99.0", body("two conflicts")).startswith("opened https://")
    assert new_releases.publish("0.99.0", body("two conflicts")) == "#1 is current"
    assert new_releases.publish("0.99.0", body("one conflict")) == "updated #1"
    (issue,) = json.loads(issues.read_text())
    assert (issue["title"], issue["body"]) == ("vllm-ascend 0.99.0: add a stack", body("one conflict"))
    assert new_releases.publish("0.99.0rc1", body("none")).startswith("opened https://")


@pytest.mark.parametrize("values", [{"state": "CLOSED"}, {"body": "I need this release"}])
def test_closed_issues_and_those_of_users_are_left_alone(issues: Path, values: dict[str, str]) -> None:
    new_releases.publish("0.99.0", body("two conflicts"))
    change(issues, **values)
    before = issues.read_text()
    assert new_releases.publish("0.99.0", body("one conflict")) == "left #1 as it is"
    assert json.loads(issues.read_text()) == json.loads(before)


def test_every_report_is_published(
    index: Index,
    issues: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(index, "0.30.0rc2", "0.98.0", "0.99.0")
    for action in ("port", "publish", "publish"):
        monkeypatch.setattr(sys, "argv", ["new_releases.py", action, str(tmp_path / "reports")])
        new_releases.main()
    assert [one["title"].partition(":")[0] for one in json.loads(issues.read_text())] == [
        "vllm-ascend 0.98.0",
        "vllm-ascend 0.99.0",
    ]
    assert capsys.readouterr().out.splitlines()[-1] == "0.99.0: #2 is current"
