"""`vimectl image plan` and `vendor` as text and JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.cli import run_cli


def test_plan_has_every_pin_with_its_reason(run_json: Callable[..., Any]) -> None:
    code, document = run_json(
        "image", "plan", "--stack", "ascend-0.22", "--chip", "a3", "--machine", "aarch64"
    )
    assert code == 0
    assert (document["schema"], document["ok"], document["chip"], document["machine"]) == (
        *("vimectl.image.plan/1", True, "a3", "aarch64"),
    )
    assert document["base"]["image"].endswith("-a3")
    saver = next(source for source in document["sources"] if source["name"] == "sgl-kernel-npu")
    assert saver["left_out"] == ["third-party/pto-isa"]
    assert all(source["reason"] for source in document["sources"])


def test_plan_as_text_has_the_pins(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["image", "plan", "--stack", "ascend-0.22"]) == 0
    text = capsys.readouterr().out
    assert (
        "git\tmindspeed\thttps://gitcode.com/Ascend/MindSpeed fc63de5c48426dd019c3b3f39e65f5bdf56e4086"
        in text
    )
    assert "wheel\tmath-verify\t0.9.0\trequired by the stack, vimectl or its runtime" in text


@pytest.mark.parametrize("stack", ["ascend-0.22", "cpu-0.32"])
def test_dry_run_of_vendor_changes_nothing(
    stack: str, tmp_path: Path, run_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no git and no builder
    folder = tmp_path / "offline"
    code, document = run_json("image", "vendor", "--stack", stack, "--offline", str(folder), "--dry-run")
    assert code == 0
    assert len(document["lacking"]) == len(document["sources"])
    assert not folder.exists()
