from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vimectl.cli import run_cli
from vimectl.recipes.resolve import resolve
from vimectl.runs import preflight
from vimectl.runs.plan import make_plan
from vimectl.util.host import Host


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_dry_run_shows_everything_and_changes_nothing(tmp_path: Path, run_json: Callable[..., Any]) -> None:
    code, document = run_json("run", "recipe", "qwen3-4b-tp2", "--mode", "long", "--dry-run")
    assert (code, document["ok"]) == (3, False)
    assert document["schema"] == "vimectl.run.recipe/1"
    assert document["recipe"]["recipe"]["name"] == "qwen3-4b-tp2"
    assert (document["mode"], document["steps"]) == ("long", 500)
    assert set(document["environment"]) == {"driver", "train", "rollout"}
    assert document["environment"]["train"]["TMS_HOOK_MODE"] == "torch"
    assert document["command"][1:3] == ["-m", "vime_runtime"]
    assert set(document["preflight"]) == {"ok", "doctor", "patches", "tms"}
    assert document["preflight"]["ok"] is False
    assert "no model directory" in document["inputs"]["error"]["message"]
    assert [device["engine"] for device in document["placement"]] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert list(tmp_path.iterdir()) == []


def test_copied_recipe_runs_from_its_path(tmp_path: Path, run_json: Callable[..., Any]) -> None:
    run_json("recipe", "copy", "qwen3-tiny-tp2", str(tmp_path / "mine"))
    copy = tmp_path / "mine" / "qwen3-tiny-tp2.toml"
    copy.write_text(copy.read_text().replace('name = "qwen3-tiny-tp2"', 'name = "mine"'))
    code, document = run_json("run", "recipe", str(copy), "--dry-run")
    assert code in (0, 3)  # this machine may lack what the recipe needs
    assert document["recipe"]["recipe"]["name"] == "mine"
    _, document = run_json("doctor", "--recipe", str(copy), "--only", "recipe")
    assert document["stack"] == "cpu-0.32"


def test_dry_run_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "recipe", "qwen3-4b-tp2", "--dry-run"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert "environment of driver, train, rollout" in lines
    assert "PYTORCH_NPU_ALLOC_CONF=expandable_segments:False" in lines
    assert any(line.startswith("node 0, device 7\trank 7, replica 3") for line in lines)
    assert any(line.startswith("device.count: ") for line in lines)


def test_dry_run_shows_the_placement_by_node(
    capsys: pytest.CaptureFixture[str], run_json: Callable[..., Any]
) -> None:
    several = ["--set", "cluster.nodes=2", "--set", "rollout.tensor_parallel=1", "--address", "head:6379"]
    argv = ["run", "recipe", "qwen3-tiny-tp2", "--dry-run", *several]
    assert run_cli(argv) == 3
    lines = capsys.readouterr().out.splitlines()
    assert "placement in the Ray cluster at head:6379" in lines
    assert "node 1, device 0\trank 2, replica 1\tengine 2, rank 0" in lines
    _, document = run_json(*argv)
    assert document["address"] == "head:6379"
    assert [device["node"] for device in document["placement"]] == [0, 0, 1, 1]


@pytest.mark.parametrize(("data", "exit_code"), [("prompts.jsonl", 0), ("nowhere", 2)])
def test_dry_run_on_a_fit_machine_has_the_exit_code_of_the_inputs(
    data: str,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_json: Callable[..., Any],
) -> None:
    examine = preflight.run_checks
    monkeypatch.setattr(
        preflight, "run_checks", lambda *args, **rest: replace(examine(*args, **rest), results=())
    )
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "1 + 1", "label": "2"}\n' * 64)
    code, document = run_json("run", "qwen3-tiny-tp2", "--dry-run", "--set", f"data.path={data}")
    assert (code, document["ok"], document["preflight"]["ok"]) == (exit_code, exit_code == 0, True)


ON_THE_STACK = pytest.mark.skipif(
    find_spec("vllm") is None, reason="the inputs are checked after the machine"
)


@pytest.mark.parametrize(
    ("argv", "code", "messages"),
    [
        (
            "qwen3-tiny-tp2 --dry-run --set cluster.nodes=2",
            2,
            ["'cluster.nodes': 2, but a private Ray cluster has one node", "ray start --head"],
        ),
        (
            "qwen3-tiny-tp2 --dry-run --address ray://head:10001",
            2,
            ["'ray://head:10001' is not the address of a Ray cluster", "ray start --head"],
        ),
        (
            "qwen3-4b-tp2",
            3,
            [
                "this machine cannot run qwen3-4b-tp2",
                "device.count: no NPU: 0 device nodes",
                "vimectl doctor --recipe qwen3-4b-tp2",
            ],
        ),
        ("qwen3-tiny-tp2 --run-dir mine --dry-run", 2, ["is not empty"]),
        ("qwen3-tiny-tp2 --resume", 2, ["no --run-dir was given"]),
        ("qwen3-tiny-tp2 --resume --run-dir mine", 2, ["is not a run directory"]),
        ("qwen3-tiny-tp2 --set rollout.temprature=1", 2, ["Did you mean rollout.temperature"]),
        pytest.param(
            "qwen3-tiny-tp2 --set model.path=nowhere", 2, ["no model directory at"], marks=ON_THE_STACK
        ),
        pytest.param("qwen3-tiny-tp2 --set data.path=nowhere", 2, ["no data file at"], marks=ON_THE_STACK),
    ],
)
def test_impossible_run_is_refused_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: str, code: int, messages: list[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert run_cli(["run", "recipe", *argv.split()]) == code
    err = capsys.readouterr().err
    assert [message for message in messages if message not in err] == []
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"]


def test_resume_of_a_finished_run_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_json: Callable[..., Any]
) -> None:
    plan = make_plan(resolve("qwen3-tiny-tp2", "smoke"), Host(), tmp_path)
    (tmp_path / "resolved.json").write_text(plan.run_config().dump())
    (tmp_path / "summary.json").write_text('{"ok": true, "steps": 4}')
    asked = ["run", "recipe", "qwen3-tiny-tp2", "--mode", "smoke", "--resume", "--run-dir", str(tmp_path)]
    assert run_cli(asked) == 0
    assert "the run finished with step 4 of 4: nothing is left to do" in capsys.readouterr().out
    _, document = run_json(*asked)
    assert (document["ok"], document["run_dir"]) == (True, str(tmp_path))
    assert run_cli([*asked, "--set", "algorithm.seed=7"]) == 2
    assert "algorithm.seed: 0 -> 7" in capsys.readouterr().err
