"""Modules that work, fail, crash, hang, or end the process; the child processes are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.imports import read_imports
from vimectl.util.host import CommandResult, Host, run_command

MODULES = {
    "good": "print('vimectl-import {not ours'); VERSION = 1",
    "lacks": "import that_which_is_not",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "leaves": "import os; os._exit(3)",
    "exits": "raise SystemExit('no device')",
    "hangs": "import time; time.sleep(60)",
    "closes": "import os; os.close(1)",
    "half": "import omitted_one\ndef use():\n    omitted_one.f()",
    "uses": "import omitted_one; omitted_one.f()",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Host(run=run_command)


def outcomes(found: dict[str, tuple[bool, str]]) -> dict[str, str]:
    return {name: text if failed else "good" for name, (failed, text) in found.items()}


def test_modules_after_a_crash_are_imported(host: Host) -> None:
    modules = ["good", "lacks", "crashes", "exits", "leaves", "json"]
    assert outcomes(read_imports(host, modules)) == {
        "good": "good",
        "lacks": "ModuleNotFoundError: No module named 'that_which_is_not'",
        "crashes": "the process was killed by SIGSEGV",
        "exits": "SystemExit: no device",
        "leaves": "the process ended with exit status 3",
        "json": "good",
    }


def test_hanging_module_fails_and_ends_the_imports(host: Host) -> None:
    found = read_imports(host, ["good", "hangs", "json"], seconds=3)
    assert outcomes(found) == {"good": "good", "hangs": "not finished within 3 s"}


def test_module_that_closes_stdout_has_failed(host: Host) -> None:
    assert read_imports(host, ["closes", "json"])["closes"][0]


def test_omitted_module_can_be_imported_but_not_used(host: Host) -> None:
    found = outcomes(read_imports(host, ["half", "uses"], ["omitted_one"]))
    assert found["half"] == "good"
    assert found["uses"].startswith("ModuleNotFoundError")


@pytest.mark.parametrize("code", [126, 127])
def test_imports_are_unavailable_without_an_interpreter(tmp_path: Path, code: int) -> None:
    with pytest.raises(Unavailable):
        read_imports(Host(tmp_path, {}, lambda argv, timeout: CommandResult(code)), ["json"])
