from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.ascend_dmi import read_compatibility
from vimectl.util.host import CommandResult, Host

INSTALLED = "/usr/local/Ascend/toolbox/latest/Ascend-DMI/bin/ascend-dmi"


def host(root: Path, answers: dict[str, CommandResult]) -> Host:
    def run(argv: Sequence[str], timeout: float) -> CommandResult:
        return answers.get(" ".join(argv), CommandResult(127))

    return Host(root, {}, run)


def test_tool_of_the_toolbox_is_asked_without_path(tmp_path: Path) -> None:
    answers = {f"{INSTALLED} -c": CommandResult(0, "+----+\n| npu-driver |  OK |\n\n")}
    with pytest.raises(Unavailable, match="not installed"):
        read_compatibility(host(tmp_path, answers))
    file = tmp_path / INSTALLED.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert read_compatibility(host(tmp_path, answers)) == ["npu-driver | OK"]


def test_failure_is_shown(tmp_path: Path) -> None:
    answers = {"ascend-dmi -c": CommandResult(1, "", "Not supported in a\ncontainer")}
    with pytest.raises(Unavailable, match="exit status 1: Not supported in a container"):
        read_compatibility(host(tmp_path, answers))
