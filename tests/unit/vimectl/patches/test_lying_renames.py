"""Apply and revert on a file system whose renames report the wrong result, and at the same time."""

from __future__ import annotations

import contextlib
import errno
import io
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from vime_runtime.spec.errors import VimeError

from harness.patches.toy_packages import snapshot, unpack
from vimectl.cli import run_cli
from vimectl.patches import command, transaction
from vimectl.patches.plan import PatchAction
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus

Classify = Callable[[list[Path]], list[TargetStatus]]


class Renames:
    """Let the n-th rename, or with ``lasting`` also all later ones, report the opposite of what it did."""

    def __init__(self, point: int, done: bool, lasting: bool) -> None:
        self.point, self.done, self.lasting, self.count = point, done, lasting, 0
        self._real = os.rename

    def __call__(self, *arguments: Any, **keywords: Any) -> None:
        self.count += 1
        if self.count != self.point and not (self.lasting and self.count > self.point):
            self._real(*arguments, **keywords)
        elif self.done:
            self._real(*arguments, **keywords)
            raise OSError(errno.EIO, os.strerror(errno.EIO), arguments[0])


@pytest.mark.slow
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.exhaustive), 11])
@pytest.mark.parametrize("action", ["apply", "revert"])
def test_lying_rename_leaves_all_or_nothing(
    action: PatchAction,
    every: int,
    rich_stack: list[Path],
    classify_all: Classify,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = rich_stack[0].parent / "kept"
    false_results = 0
    with (
        mock.patch.dict("os.environ", SOURCE_DATE_EPOCH="1767225600"),
        mock.patch("os.fsync", return_value=None),
    ):
        if action == "revert":
            command.change("apply", classify_all(rich_stack))
        for place in rich_stack:
            shutil.copytree(place, kept / place.name, symlinks=True)
        before = snapshot(*rich_stack)
        command.change(action, classify_all(rich_stack))
        after = snapshot(*rich_stack)
        for done, lasting in [(False, False), (False, True), (True, False), (True, True)]:
            point = 1
            while True:
                for place in rich_stack:
                    shutil.rmtree(place)
                    shutil.copytree(kept / place.name, place, symlinks=True)
                renames = Renames(point, done, lasting)
                outcome = "done"
                with mock.patch("os.rename", renames):
                    try:
                        command.change(action, classify_all(rich_stack))
                    except VimeError as e:
                        outcome = e.hint
                if renames.count < point:
                    break
                false_results += 1
                now = snapshot(*rich_stack)
                if outcome in ("done", "nothing was changed", "everything is as it was before"):
                    assert now == (after if outcome == "done" else before), (point, done, lasting, outcome)
                for place in rich_stack:
                    transaction.recover(place)
                assert snapshot(*rich_stack) in (before, after), (point, done, lasting, outcome)
                point += every
    with capsys.disabled():
        print(f"\n{action}: {false_results} lying renames")


def _commands(site: Path, series: Path, count: int, seed: int, answers: Any) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        name = rng.choice(["apply", "revert", "status", "recover"])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run_cli(["patch", name, "--series", str(series), "--target", str(site), "toy"])
        answers.put((name, code, printed.getvalue()))


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, pytest.param(46, marks=pytest.mark.exhaustive)])
def test_commands_at_the_same_time_see_whole_states(
    count: int, memory: Path, toy_series: Series, capsys: pytest.CaptureFixture[str]
) -> None:
    site = unpack(memory / "site")
    before = snapshot(site)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    work = (site, toy_series.directories[0], count)
    processes = [context.Process(target=_commands, args=(*work, seed, answers)) for seed in range(8)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in range(8 * count)]
    for process in processes:
        process.join()
    for name, code, text in found:
        assert code == 0, (name, text)
        if name in ("apply", "revert"):
            assert ("\tpristine\t" in text) != ("\tapplied\t" in text), text
    assert run_cli(["patch", "revert", "--series", str(work[1]), "--target", str(site), "toy"]) == 0
    assert snapshot(site) == before
    with capsys.disabled():
        print(f"\n{len(found)} commands at the same time")
