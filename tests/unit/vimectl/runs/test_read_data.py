from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from vime_runtime.spec.errors import UsageError

from harness.runs.wait import wait_until
from vimectl.recipes.resolve import resolve
from vimectl.runs import read_data as reading
from vimectl.runs.plan import RunPlan, make_plan, write_run_directory
from vimectl.runs.progress import PlainView
from vimectl.runs.read_data import read_data
from vimectl.util.host import Host

VIEW = PlainView(Console(quiet=True))


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [("bad", 2, "problems.jsonl:1: is odd"), ("crash", 1, "reading the data ended with exit code 1: out of")],
)
def test_data_that_cannot_be_read_leaves_no_run_directory(
    launch: Callable[..., Any], fault: str, code: int, message: str
) -> None:
    run = launch(f"FAKE_DATA_FAULT={fault}")
    found, out, _ = run.wait()
    assert found == code
    assert message in out
    assert not run.run_dir.exists()
    assert not list(run.run_dir.parent.glob(".run.*"))


def test_an_interrupted_reading_leaves_nothing(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_DATA_FAULT=slow")
    wait_until(lambda: list(run.run_dir.parent.glob(".run.*/tmp/reading")))
    run.process.send_signal(signal.SIGINT)
    code, _, _ = run.wait()
    assert code == 130
    assert not run.run_dir.exists()
    assert not list(run.run_dir.parent.glob(".run.*"))


def test_a_smoke_run_keeps_its_steps_with_epochs(launch: Callable[..., Any]) -> None:
    run = launch("train.epochs=3", "modes.smoke.steps=4")
    assert run.wait()[0] == 0
    assert json.loads((run.run_dir / "resolved.json").read_text())["steps"] == 4


@pytest.fixture
def plan(
    tmp_path: Path, write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunPlan]:
    """Return a function that plans a run whose 50 problems are read at once."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "1 2", "label": "2"}\n')
    own = [f"model.path={write_model()}", f"data.path={data}"]

    def read(arguments: list[str], folder: Path, *_: object) -> int:
        assert json.loads(Path(arguments[1]).read_text())["data"]["path"] == str(data)
        problems = Path(arguments[2])
        problems.mkdir()
        (problems / "counts.json").write_text('{"train": {"problems": 50}}')
        return 0

    monkeypatch.setattr(reading, "run_module", read)

    def make(*assignments: str, **options: Any) -> RunPlan:
        resolved = resolve("qwen3-tiny-tp2", "test", [*own, *assignments])
        return make_plan(resolved, Host(), tmp_path / "new" / "run", **options)

    return make


def test_the_problems_move_into_the_run_directory(plan: Callable[..., RunPlan]) -> None:
    made = plan("train.epochs=3", "algorithm.prompts_per_step=16")
    assert (made.steps, made.length) == (None, "3 epochs")
    with read_data(made, VIEW) as read:
        assert (read.steps, read.length) == (10, "10 steps")  # 150 problems, 16 a step
        write_run_directory(read, {})
    assert json.loads((made.run_dir / "resolved.json").read_text())["steps"] == 10
    assert [path.name for path in made.run_dir.parent.iterdir()] == ["run"]
    assert (made.run_dir / "problems/counts.json").is_file()


def test_a_resumed_run_keeps_its_problems(
    plan: Callable[..., RunPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("train.epochs=3", "algorithm.prompts_per_step=16", "optimizer.decay=linear")
    with read_data(plan(*own), VIEW) as read:
        write_run_directory(read, {})
    monkeypatch.delattr(reading, "run_module")
    resumed = plan(*own, resume=True)
    assert resumed.steps == 10
    with read_data(resumed, VIEW) as read:
        assert read == resumed
    with pytest.raises(UsageError, match=r"a run of 10 steps, but 7 are requested"):
        plan("train.epochs=2", *own[1:], resume=True)


def test_an_error_leaves_no_folder(plan: Callable[..., RunPlan]) -> None:
    made = plan()
    with pytest.raises(UsageError), read_data(made, VIEW):
        raise UsageError("later")
    assert not made.run_dir.parent.exists()
