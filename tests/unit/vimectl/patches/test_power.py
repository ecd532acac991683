"""Simulate a power loss at any moment of an apply or revert; the next command finds all or nothing."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.patches import power_loss
from vimectl.patches import command, transaction
from vimectl.patches.plan import PatchAction
from vimectl.patches.state import TargetStatus

Classify = Callable[[list[Path]], list[TargetStatus]]


def contents(root: Path) -> dict[str, bytes | None]:
    """Return the contents of a tree and its folders without bookkeeping."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if not {".vimectl", ".git", "state"} & set(path.parts)
    }


# Every disk, and 20 random ones at each moment, in `make test-exhaustive`; the everyday suite takes some.
@pytest.mark.slow
@pytest.mark.parametrize(("more", "every"), [pytest.param(20, 1, marks=pytest.mark.exhaustive), (0, 7)])
@pytest.mark.parametrize("action", ["apply", "revert"])
def test_power_loss_at_any_moment_is_recovered(
    action: PatchAction,
    more: int,
    every: int,
    rich_stack: list[Path],
    classify_all: Classify,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = rich_stack[0].parent
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
    shutil.rmtree(rich_stack[1] / ".git")
    if action == "revert":
        command.change("apply", classify_all(rich_stack))
    before = contents(root)
    recorder = power_loss.Recorder(root)
    disks = power_loss.possible(
        recorder, lambda: command.change(action, classify_all(rich_stack)), random.Random(0), more, every
    )
    found = list(disks)
    after = contents(root)
    assert before != after
    outcomes = set()
    for number, one in enumerate(found):
        power_loss.write(one, root)
        for place in rich_stack:
            transaction.recover(place)
        now = contents(root)
        assert now in (before, after)
        outcomes.add(now == after)
        if number % 9 == 0:  # and further commands work from there
            again = command.change(action, classify_all(rich_stack))
            assert {one.state for one in again.targets} == {"applied" if action == "apply" else "pristine"}
    assert outcomes == {True, False}
    with capsys.disabled():
        print(f"\n{action}: {len(found)} different disks after a loss of power")
