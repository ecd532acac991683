from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from vimectl.cli import run_cli


@pytest.fixture
def run_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command line with --json; return its exit code and its document."""

    def run(*argv: str) -> tuple[int, dict[str, Any]]:
        code = run_cli([*argv, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run
