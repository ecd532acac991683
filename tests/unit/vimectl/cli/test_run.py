from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from vimectl.cli import run_cli
from vimectl.recipes.resolve import resolve
from vimectl.runs.plan import make_plan
from vimectl.util.host import Host


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_dry_run_shows_everything_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["run", "recipe", "qwen3-4b-tp2", "--mode", "long", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
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


def test_dry_run_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "recipe", "qwen3-4b-tp2", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "environment of driver, train, rollout" in lines
    assert "PYTORCH_NPU_ALLOC_CONF=expandable_segments:False" in lines
    assert any(line.startswith("node 0, device 7\trank 7, replica 3") for line in lines)
    assert any(line.startswith("device.count: ") for line in lines)


def test_dry_run_shows_the_placement_by_node(capsys: pytest.CaptureFixture[str]) -> None:
    several = ["--set", "cluster.nodes=2", "--set", "rollout.tensor_parallel=1", "--dry-run"]
    where = ["--address", "head:6379"]
    assert run_cli(["run", "recipe", "qwen3-tiny-tp2", *several, *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "placement in the Ray cluster at head:6379" in lines
    assert "node 1, device 0\trank 2, replica 1\tengine 2, rank 0" in lines
    assert run_cli(["run", "recipe", "qwen3-tiny-tp2", *several, *where, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["address"] == "head:6379"
    assert [device["node"] for device in document["placement"]] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "cluster.nodes=2"], "'cluster.nodes': 2, but a private Ray cluster has one node"),
        (["--address", "ray://head:10001"], "'ray://head:10001' is not the address of a Ray cluster"),
    ],
)
def test_impossible_cluster_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_cli(["run", "recipe", "qwen3-tiny-tp2", "--dry-run", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "ray start --head" in err


def test_machine_without_npus_is_refused_with_the_failed_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["run", "recipe", "qwen3-4b-tp2"]) == 3
    err = capsys.readouterr().err
    assert "this machine cannot run qwen3-4b-tp2" in err
    assert "device.count: no NPU: 0 device nodes" in err
    assert "vimectl doctor --recipe qwen3-4b-tp2" in err
    assert list(tmp_path.iterdir()) == []


def test_run_directory_that_is_not_empty_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    assert run_cli(["run", "recipe", "qwen3-tiny-tp2", "--run-dir", str(tmp_path), "--dry-run"]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("vllm") is None, reason="only a machine that could run it looks at its inputs")
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.path=nowhere", "no model directory at"),
        ("data.path=nowhere", "no data file at"),
        ("rollout.tensor_parallel=3", "does not divide the 2 devices"),
        ("rollout.temprature=1", "Did you mean rollout.temperature"),
    ],
)
def test_bad_input_is_found_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], assignment: str, message: str
) -> None:
    assert run_cli(["run", "recipe", "qwen3-tiny-tp2", "--set", assignment]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_resume_needs_the_directory_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "recipe", "qwen3-tiny-tp2", "--resume"]) == 2
    assert "no --run-dir was given" in capsys.readouterr().err
    assert run_cli(["run", "recipe", "qwen3-tiny-tp2", "--resume", "--run-dir", str(tmp_path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_resume_of_a_finished_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(resolve("qwen3-tiny-tp2", "smoke"), Host(), tmp_path)
    (tmp_path / "resolved.json").write_text(plan.run_config().dump())
    (tmp_path / "summary.json").write_text('{"ok": true, "steps": 4}')
    asked = ["run", "recipe", "qwen3-tiny-tp2", "--mode", "smoke", "--resume", "--run-dir", str(tmp_path)]
    assert run_cli(asked) == 0
    assert "the run finished with step 4 of 4: nothing is left to do" in capsys.readouterr().out
    assert run_cli([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["run_dir"]) == (True, str(tmp_path))
    assert run_cli([*asked, "--set", "algorithm.seed=7"]) == 2
    assert "algorithm.seed: 0 -> 7" in capsys.readouterr().err
