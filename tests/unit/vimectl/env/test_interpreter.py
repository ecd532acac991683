import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement

from vimectl.env.interpreter import find_interpreter
from vimectl.util.host import CommandResult, Host


def host(**interpreters: str) -> Host:
    """Return a machine with Python interpreters of these names and versions."""

    def run(argv: Sequence[str], timeout: float) -> CommandResult:
        version = interpreters.get(Path(argv[0]).name.replace(".", "_"))
        if version is None:
            return CommandResult(127)
        return CommandResult(0, json.dumps([version, f"/opt/{version}/bin/python"]))

    return Host(environment={}, run=run)


def test_running_interpreter_is_preferred() -> None:
    own = Path(sys.executable).name.replace(".", "_")
    assert find_interpreter(">=3.11,<3.12", host(**{own: "3.11.9"})) == Path("/opt/3.11.9/bin/python")


def test_interpreter_on_the_path_is_found() -> None:
    own = Path(sys.executable).name.replace(".", "_")
    machine = host(**{own: "3.10.1", "python3_11": "3.11.2"})
    assert find_interpreter(">=3.11,<3.12", machine) == Path("/opt/3.11.2/bin/python")


def test_error_lists_the_interpreters_found() -> None:
    with pytest.raises(MissingRequirement, match=r"found 3\.13\.0 \(python3\)") as lacking:
        find_interpreter(">=3.11,<3.12", host(python3="3.13.0"))
    assert "python3.11" in lacking.value.hint
