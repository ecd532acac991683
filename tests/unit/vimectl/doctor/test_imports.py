"""Modules that work, fail, crash, hang, or end the process without a word; each child is a real one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from vimectl.doctor.imports import Import, import_in_child
from vimectl.util.host import CommandResult, Host, refuse_command, run_command

MODULES = {
    "well": "print('vimectl-import {not ours'); VERSION = 1",
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


def outcomes(found: dict[str, Import] | None) -> dict[str, str]:
    assert found is not None
    return {name: one.found if one.error else "well" for name, one in found.items()}


def test_after_a_crash_the_rest_is_imported_all_the_same(host: Host) -> None:
    asked = ["well", "lacks", "crashes", "exits", "leaves", "json"]
    assert outcomes(import_in_child(host, asked)) == {
        "well": "well",
        "lacks": "ModuleNotFoundError: No module named 'that_which_is_not'",
        "crashes": "the process was killed by SIGSEGV",
        "exits": "SystemExit: no device",
        "leaves": "the process ended with exit status 3",
        "json": "well",
    }


def test_the_module_that_hangs_is_to_blame_and_those_after_it_are_left_out(host: Host) -> None:
    found = import_in_child(host, ["well", "hangs", "json"], seconds=3)
    assert outcomes(found) == {"well": "well", "hangs": "no end within 3 s"}


def test_a_module_that_takes_the_output_away_is_not_called_well(host: Host) -> None:
    found = import_in_child(host, ["closes", "json"])
    assert found is not None
    assert found["closes"].error


def test_what_the_stack_leaves_out_may_be_imported_and_not_be_used(host: Host) -> None:
    found = outcomes(import_in_child(host, ["half", "uses"], ["omitted_one"]))
    assert found["half"] == "well"
    assert found["uses"].startswith("ModuleNotFoundError")


def test_without_an_interpreter_there_is_no_answer(tmp_path: Path) -> None:
    assert import_in_child(Host(tmp_path, {}, refuse_command), ["json"]) is None
    assert import_in_child(Host(tmp_path, dict(os.environ), _no_such_program), ["json"]) is None


def _no_such_program(argv: Sequence[str], timeout: float) -> CommandResult:
    return run_command(["/no/such/python"], timeout)
