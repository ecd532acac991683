"""Interrupt apply and revert of two packages at every operation on the file system."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.patches import disk_operations
from harness.patches.toy_packages import snapshot
from vimectl.patches import command, transaction
from vimectl.patches.plan import PatchAction
from vimectl.patches.state import TargetStatus
from vimectl.patches.target_tree import FOLDER

Classify = Callable[[list[Path]], list[TargetStatus]]


class Ends:
    """The states of the two directories before and after a change, and a way to restore the former."""

    def __init__(self, action: PatchAction, places: list[Path], classify_all: Classify) -> None:
        self.action, self.places, self._classify = action, places, classify_all
        if action == "revert":
            self.change("apply")
        self._kept = places[0].parent / "kept"
        self._kept.mkdir()
        for place in places:
            shutil.copytree(place, self._kept / place.name, symlinks=True)
        self.before = self.now()
        self.change()
        self.after = self.now()
        assert self.before != self.after

    def change(self, action: PatchAction | None = None) -> None:
        command.change(action or self.action, self._classify(self.places))

    def now(self) -> dict[str, tuple[int, bytes]]:
        return snapshot(*self.places)

    def restore(self) -> None:
        if self.now() == self.before:
            return
        for place in self.places:
            shutil.rmtree(place)
            shutil.copytree(self._kept / place.name, place, symlinks=True)

    def recover(self) -> list[str]:
        return [message for place in self.places if (message := transaction.recover(place))]


@pytest.fixture(params=["apply", "revert"])
def ends(request: pytest.FixtureRequest, rich_stack: list[Path], classify_all: Classify) -> Iterator[Ends]:
    # A kill loses nothing that the kernel has, so waiting for the disk is not needed here.
    with (
        mock.patch.dict("os.environ", SOURCE_DATE_EPOCH="1767225600"),
        mock.patch("os.fsync", return_value=None),
    ):
        yield Ends(request.param, rich_stack, classify_all)


# Every operation in `make test-exhaustive`; the everyday suite takes some of them.
@pytest.mark.slow
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.exhaustive), 13])
def test_kill_at_any_operation_is_recovered(
    ends: Ends, every: int, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    points: Counter[str] = Counter()
    outcomes = set()
    point = 1
    while True:
        ends.restore()
        operation = disk_operations.die_at(point, ends.change)
        if operation is None:
            break
        points[operation] += 1
        if point % 4 == 0:  # kill the recovery too, repeatedly
            again = point % 31 + 1
            while disk_operations.die_at(again, ends.recover):
                again += 31
        messages = ends.recover()
        now = ends.now()
        assert now in (ends.before, ends.after), f"point {point}, before {operation}"
        assert all(("finished" in message) == (now == ends.after) for message in messages)
        outcomes |= {message.partition(": ")[2] for message in messages}
        point += every
    assert ends.now() == ends.after
    total = sum(points.values())
    record_property("points", total)
    with capsys.disabled():
        print(f"\n{ends.action} killed at {total} points: {dict(points)}")
    assert outcomes == {
        "an interrupted change had not begun; its preparation was removed",
        f"an interrupted {ends.action} was finished",
    }


@pytest.mark.slow
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.exhaustive), 29])
@pytest.mark.parametrize(
    ("error", "lasting"),
    [(errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EROFS, True), (errno.EIO, False)],
)
def test_error_at_any_operation_is_recovered(ends: Ends, error: int, lasting: bool, every: int) -> None:
    outcomes = set()
    point = 1
    while True:
        ends.restore()
        faults = disk_operations.Faults(point, error, lasting)
        try:
            with disk_operations.watched(faults):
                ends.change()
            outcome = "done"
        except MissingRequirement as e:
            outcome = e.hint
        if not faults.met:
            break
        now = ends.now()
        if outcome in ("nothing was changed", "everything is as it was before"):
            assert without_bookkeeping(now) == without_bookkeeping(ends.before), f"point {point}"
        messages = ends.recover()
        recovered = ends.now()
        assert recovered in (ends.before, ends.after), f"point {point}: {outcome}"
        if outcome == "done":
            assert recovered == ends.after
        elif recovered == ends.after:
            assert any("finished" in message for message in messages), f"point {point}: {outcome}"
        outcomes.add(outcome)
        point += every
    # If not even the preparation can be removed, the next command does it.
    assert "nothing was changed" in outcomes or (error, lasting) == (errno.EROFS, True)


def test_failing_rmdir_rolls_the_change_back(rich_stack: list[Path], classify_all: Classify) -> None:
    command.change("apply", classify_all(rich_stack))
    before = snapshot(*rich_stack)
    refused = []

    def refuse(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        path = disk_operations.absolute(arguments[0], keywords.get("dir_fd"))
        if name == "rmdir" and path.endswith("two/fresh/deep") and not refused:
            refused.append(arguments)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))

    with disk_operations.watched(refuse), pytest.raises(MissingRequirement) as caught:
        command.change("revert", classify_all(rich_stack))
    assert caught.value.hint == "everything is as it was before"
    assert snapshot(*rich_stack) == before


def without_bookkeeping(found: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    return {path: what for path, what in found.items() if ".vimectl" not in path}


def test_early_kill_leaves_nothing_after_recovery(ends: Ends) -> None:
    ends.restore()
    assert disk_operations.die_at(3, ends.change)
    assert any((place / FOLDER).exists() for place in ends.places)
    ends.recover()
    assert ends.now() == ends.before
