"""Preparation: made once, whole or not at all."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.recipe import prepared
from vimectl.recipe.resolve import resolve


def test_an_interrupted_preparation_leaves_nothing(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN_PREPARE=slow")
    deadline = time.monotonic() + 20
    while not list(run.cache.glob("vimectl/prepared/.*/half")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.process.send_signal(signal.SIGINT)
    code, _, _ = run.wait(15)
    assert code == 130
    assert not list(run.cache.glob("vimectl/prepared/*"))
    assert not run.run_dir.exists()
    assert not run.scratch_dir.exists()


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [("bad", 2, "unknown kind "), ("crash", 1, "ended with exit code 1: out of luck")],
)
def test_a_failed_preparation_says_why_and_leaves_nothing(
    launch: Callable[..., Any], fault: str, code: int, message: str
) -> None:
    run = launch(f"STANDIN_PREPARE={fault}")
    found, out, _ = run.wait()
    assert found == code
    assert message in out
    assert not list(run.cache.glob("vimectl/prepared/*"))
    assert not run.run_dir.exists()


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = resolve("qwen3-tiny-tp2").recipe
    prepare = prepared.needed(recipe)
    assert prepare is not None
    prepared.folder(prepare).mkdir(parents=True)
    prepared.make(prepare, {}, progress=None)  # type: ignore[arg-type]  # would need an environment to start
    assert [path.name for path in (tmp_path / "vimectl/prepared").iterdir()] == [
        prepared.folder(prepare).name
    ]


def test_other_settings_are_another_folder() -> None:
    one = resolve("qwen3-tiny-tp2").recipe.prepare
    other = resolve("qwen3-tiny-tp2", assignments=["prepare.settings.seed=7"]).recipe.prepare
    assert one is not None
    assert other is not None
    assert prepared.folder(one) != prepared.folder(other)


def test_somebody_who_brings_model_and_data_prepares_nothing() -> None:
    assert prepared.needed(resolve("qwen3-tiny-tp2", assignments=["model.path=/m"]).recipe)
    own = resolve("qwen3-tiny-tp2", assignments=["model.path=/m", "data.path=/d"])
    assert prepared.needed(own.recipe) is None
