"""Test the facts that all checks share: each command is run once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vimectl.doctor.facts import Facts
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import CommandResult, Host


def test_command_is_run_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(argv: Sequence[str], timeout: float) -> CommandResult:
        asked.append(" ".join(argv))
        return CommandResult(0, str(len(asked)))

    facts = Facts(Host(tmp_path, {}, run), load_stack("cpu-0.32"))
    first = facts.output("npu-smi", "info")
    assert [facts.output("npu-smi", "info") for _ in range(3)] == [first] * 3
    assert facts.output("npu-smi", "-v") != first
    assert asked.count("npu-smi info") == 1
