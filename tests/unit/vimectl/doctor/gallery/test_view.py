"""The text output for described machines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.doctor.described_machine import CONFIG, GALLERY, Machine
from vimectl.cli import run_cli
from vimectl.patches import series

MODEL = ["--set", "model.path=/models/Qwen3-4B", "--set", "data.path=/data/train.jsonl"]


Shown = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Run the doctor on a machine by name, with more options; return exit code and lines."""

    def run(name: str, *more: str) -> tuple[int, list[str]]:
        machine = Machine(name, tmp_path / name)
        monkeypatch.setattr("vimectl.cli.doctor._host", lambda root, python: machine.host)
        monkeypatch.setattr(series, "data_dir", GALLERY.joinpath)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(machine.path(CONFIG)))
        code = run_cli(["doctor", "--recipe", "qwen3-4b-tp2", *MODEL, *more])
        return code, capsys.readouterr().out.splitlines()

    return run


def test_group_without_problems_is_one_line(shown: Shown) -> None:
    code, lines = shown("a2-host")
    assert code == 0
    assert [line.split(":")[0] for line in lines] == [
        "pass  device", "pass  driver", "pass  host", "pass  cann", "pass  python", "pass  packages",
        "pass  patches", "pass  tms", "pass  environment", "pass  cluster", "pass  recipe",
        "pass  builder", "pass  leftovers", "skip  network", "ascend-0.22",
    ]  # fmt: skip
    assert re.fullmatch(r"ascend-0\.22: \d+ checks, no problems found", lines[-1])


def test_last_line_names_what_to_fix_first(shown: Shown) -> None:
    only = ["--only", "environment", "--only", "device"]
    code, lines = shown("visible-twice", *only)
    assert code == 1
    assert lines[-1] == "fix first: environment.visible-devices: unset ASCEND_RT_VISIBLE_DEVICES"
    code, lines = shown("expandable-segments", *only)
    assert code == 0
    assert lines[-1].startswith("ascend-0.22: nothing prevents a run; first warning: environment.allocator")
