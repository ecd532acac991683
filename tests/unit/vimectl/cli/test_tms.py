"""`vimectl tms` as text and JSON."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.memory_saver.elf_file import ElfFile
from vimectl.cli import run_cli

TORCH = "torch_memory_saver_hook_mode_torch.abi3.so"


@pytest.fixture(autouse=True)
def _own_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("LD_PRELOAD", raising=False)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first directory of sys.path, with the package and a library for this machine."""
    (tmp_path / "torch_memory_saver").mkdir()
    (tmp_path / "torch_memory_saver" / "__init__.py").touch()
    (tmp_path / "torch_memory_saver" / "utils.py").write_text('d.glob(f"{stem}.*.so")')
    (tmp_path / TORCH).write_bytes(ElfFile(machine=platform.machine()).content())
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_unknown_library_fails_until_it_is_recorded(site: Path, run_json: Callable[..., Any]) -> None:
    ascend = ("verify", "--recipe", "qwen3-4b-tp2")
    code, document = run_json("tms", *ascend)
    (build,) = document["builds"]
    assert (code, document["ok"], document["stack"]) == (1, False, "ascend-0.22")
    assert (build["path"], build["verdict"], build["loads"]) == (str(site / TORCH), "unknown", True)
    assert build["why"].startswith(f"Python imports {site / 'torch_memory_saver'}, which loads torch_memory")
    code, document = run_json("tms", "record", str(site / TORCH), "--note", "passed 20 steps")
    assert (code, document["schema"], document["file"]) == (
        *(0, "vimectl.tms.record/1"),
        str(site / "config/vimectl/builds.toml"),
    )
    assert run_json("tms", *ascend)[0] == 0
    code, document = run_json("tms", "list")
    assert document["builds"][-1]["note"] == "passed 20 steps"
    assert document["builds"][-1]["by"]


def test_cuda_build_on_an_ascend_stack_fails(site: Path, run_json: Callable[..., Any]) -> None:
    (site / TORCH).write_bytes(ElfFile(platform.machine(), ["libcuda.so.1"]).content())
    code, document = run_json("tms", "verify", "--stack", "ascend-0.22")
    assert (code, document["builds"][0]["verdict"]) == (1, "wrong-backend")
    assert document["builds"][0]["needed"] == ["libcuda.so.1"]


@pytest.mark.usefixtures("site")
def test_cpu_stack_loads_no_library_and_passes(
    run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = run_json("tms", "verify", "--stack", "cpu-0.32")
    assert (code, [build["loads"] for build in document["builds"]]) == (0, [False])
    assert run_cli(["tms", "verify", "--stack", "cpu-0.32"]) == 0
    assert "none of these would be loaded" in capsys.readouterr().out


def test_control_characters_of_a_file_are_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = tmp_path / "x\x1b[31m.so"
    hostile.write_bytes(ElfFile(needed=["libcuda.so.1\x1b[31m", "[bold]"]).content())
    assert run_cli(["tms", "verify", str(hostile), "--stack", "ascend-0.22"]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"x\x1b[31m.so" in shown
    assert r"libcuda.so.1\x1b[31m [bold]" in shown


def test_file_that_is_not_a_library_fails(tmp_path: Path, run_json: Callable[..., Any]) -> None:
    (tmp_path / TORCH).write_text("not a library")
    code, document = run_json("tms", "verify", str(tmp_path), "--stack", "ascend-0.22")
    assert (code, document["schema"], document["ok"]) == (1, "vimectl.tms.verify/1", False)
    (build,) = document["builds"]
    assert build.keys() >= {"path", "md5", "sha256", "size", "hook_mode", "match"}
    assert (build["verdict"], build["backend"], build["machine"]) == ("not-elf", "unknown", None)
