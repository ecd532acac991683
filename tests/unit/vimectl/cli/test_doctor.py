"""`vimectl doctor` on this machine and on another root."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vimectl.cli import run_cli


@pytest.mark.parametrize(
    ("name", "status"), [("packages.vllm", "fail"), ("recipe.model", "skip"), ("packages.duplicates", "pass")]
)
def test_one_check_of_another_root(
    run_json: Callable[..., Any], tmp_path: Path, name: str, status: str
) -> None:
    argv = ["--root", str(tmp_path), "--recipe", "qwen3-4b-tp2", "--only", name]
    code, document = run_json("doctor", *argv)
    assert (document["schema"], document["stack"]) == ("vimectl.doctor/1", "ascend-0.22")
    (check,) = document["checks"]
    assert (check["id"], check["group"], check["status"]) == (name, name.partition(".")[0], status)
    assert list(check) == ["id", "group", "status", "found", "expected", "why", "fix", "cause"]
    assert check["found"]
    assert check["why"]
    assert document["summary"] == {"pass": 0, "warn": 0, "fail": 0, "skip": 0} | {status: 1}
    assert (code, document["ok"]) == ((1, False) if status == "fail" else (0, True))


def test_npu_recipe_fails_without_npus_and_names_what_to_fix(
    run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    if list(Path("/dev").glob("davinci[0-9]*")):
        pytest.skip("this machine has NPUs")
    assert run_cli(["doctor", "--recipe", "qwen3-4b-tp2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"fix first: device\.count: .* with Ascend NPUs", lines[-1])
    assert [line for line in lines if line.startswith("fail")] == [lines[0]]
    code, document = run_json("doctor", "--recipe", "qwen3-4b-tp2")
    assert (code, document["summary"]["fail"]) == (1, 1)


@pytest.mark.skipif(find_spec("vllm") is None, reason="the CPU stack is not installed")
def test_recipe_of_this_machine_passes(run_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    # The other groups may fail for a moment because of other work here: patches, active runs.
    groups = ["python", "packages", "environment", "cluster", "recipe", "builder"]
    only = [word for group in groups for word in ("--only", group)]
    code, document = run_json("doctor", "--recipe", "qwen3-tiny-tp2", *only)
    assert [check for check in document["checks"] if check["status"] == "fail"] == []
    assert code == 0


def test_list_has_the_selected_checks(run_json: Callable[..., Any]) -> None:
    argv = ["--stack", "cpu-0.32", "--only", "tms", "--only", "nodes.model"]
    code, document = run_json("doctor", "--list", *argv)
    assert (code, document["checks"][-1]["id"]) == (0, "nodes.model")
    assert {one["group"] for one in document["checks"][:-1]} == {"tms"}


def test_selected_check_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["doctor", "--stack", "ascend-0.22", "--only", "cluster.localhost"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        "pass  cluster", "pass cluster.localhost", "found", "expected", "why", "read", "ascend-0.22",
    ]  # fmt: skip
    assert re.fullmatch(r"ascend-0\.22: \d+ checks, no problems found", lines[-1])


def test_bundle_has_the_report_as_text(run_json: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    argv = ["--recipe", "qwen3-tiny-tp2", "--only", "cluster.localhost", "--bundle", str(file)]
    code, document = run_json("doctor", *argv)
    assert (code, document["bundle"]["path"]) == (0, str(file))
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == document["bundle"]["files"]
        assert "\n      pass cluster.localhost\n" in archive.read("doctor.txt").decode()


def test_fix_reports_that_it_cannot_fix_anything(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--recipe", "qwen3-tiny-tp2", "--set", "env.VLLM_PLUGINS=other", "--only", "environment.plugins"]
    assert run_cli(["doctor", *argv, "--fix", "--json"]) == 1
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert (document["checks"][0]["status"], document["fixed"]) == ("fail", [])
    assert "--fix cannot fix any of these" in output.err


def test_json_has_the_machine_in_labeled_values(run_json: Callable[..., Any]) -> None:
    _, document = run_json("doctor", "--stack", "cpu-0.32", "--only", "host.system")
    assert document["facts"]["stack"] == "cpu-0.32"
    assert document["facts"]["package ray"]


def test_text_to_paste_has_no_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdefghij")
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/home/lihua/hf_0123456789abcdefghij")
    run_cli(["doctor", "--text", "--stack", "cpu-0.32", "--only", "host.system"])
    text = capsys.readouterr().out
    assert "package tokenizers: <secret>" not in text
    assert "variable VLLM_CACHE_ROOT: /home/<user>/<secret>\n" in text
    assert "lihua" not in text


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--address", "nonsense"], 2, "is not the address of a Ray cluster"),
        (["--address", "10.0.0.1:6379", "--root", "."], 2, "--address is of a running cluster"),
        # The tool alone has no Ray.
        (["--address", "127.0.0.1:1", "--stack", "cpu-0.32"], 3, "Ray cluster at 127.0.0.1:1|named 'ray'"),
    ],
)
def test_cluster_that_cannot_be_examined_is_an_error(
    run_json: Callable[..., Any], argv: list[str], code: int, message: str
) -> None:
    found, document = run_json("doctor", *argv)
    assert found == code
    assert re.search(message, document["error"]["message"])
