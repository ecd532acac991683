"""Preparation: made once, whole or not at all."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.spec.recipe import FetchTable, PrepareTable

from vimectl.recipes import download_cache, prepare_cache
from vimectl.recipes.resolve import resolve
from vimectl.runs.progress import PlainProgress
from vimectl.runs.supervised_command import Outcome


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
    prepare = prepare_cache.needed(recipe)
    assert prepare is not None
    prepare_cache.folder(prepare).mkdir(parents=True)
    prepare_cache.make(prepare, {}, progress=None)  # type: ignore[arg-type]  # would need an environment to start
    assert [path.name for path in (tmp_path / "vimectl/prepared").iterdir()] == [
        prepare_cache.folder(prepare).name
    ]


def test_other_settings_are_another_folder() -> None:
    one = resolve("qwen3-tiny-tp2").recipe.prepare
    other = resolve("qwen3-tiny-tp2", assignments=["prepare.settings.seed=7"]).recipe.prepare
    assert one is not None
    assert other is not None
    assert prepare_cache.folder(one) != prepare_cache.folder(other)


@pytest.fixture
def fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrepareTable:
    """A preparation of one fetched file, which a stand-in brings."""

    def bring(fetch: FetchTable, folder: Path, events: Path, look: Callable[[], None]) -> Path:
        folder.mkdir()
        (folder / "model.gguf").write_text("GGUF")
        return folder / "model.gguf"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download_cache, "bring", bring)
    prepare = resolve("smollm2-135m").recipe.prepare
    assert prepare is not None
    return prepare


def ends(monkeypatch: pytest.MonkeyPatch, code: int, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    """End the runtime's part at once with this exit code and output. Returns the settings it was given."""
    given: list[dict[str, Any]] = []

    def supervise(command: list[str], environment: Any, stdout: Path, **rest: Any) -> Outcome:
        given.append(json.loads(command[-1]))
        assert Path(given[-1]["file"]).read_text() == "GGUF"
        stdout.write_text("".join(json.dumps(line) + "\n" for line in lines))
        rest["look"]()
        return Outcome(1, code, True, None, 7, [])

    monkeypatch.setattr(prepare_cache, "supervise", supervise)
    return given


def test_what_is_fetched_fills_the_settings_and_does_not_stay(
    fetching: PrepareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ends(monkeypatch, 0)
    assert prepare_cache.make(fetching, {}, progress=PlainProgress(Console(quiet=True))) == 7
    assert given[0]["file"].endswith("/fetched/model.gguf")
    assert not (prepare_cache.folder(fetching) / "fetched").exists()
    assert prepare_cache.folder(fetching).is_dir()


def test_a_full_disk_is_what_the_machine_lacks(
    fetching: PrepareTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"kind": "machine-lacks", "message": "no space left", "hint": "free some"}
    ends(monkeypatch, 3, {"kind": "error", "error": error})
    with pytest.raises(MissingRequirement, match="no space left"):
        prepare_cache.make(fetching, {}, progress=PlainProgress(Console(quiet=True)))
    assert list(prepare_cache.folder(fetching).parent.iterdir()) == []


def test_another_wheel_is_another_folder() -> None:
    one = resolve("smollm2-135m").recipe.prepare
    other = resolve("smollm2-135m", assignments=["prepare.fetch.version=0.1.3"]).recipe.prepare
    assert one is not None
    assert other is not None
    assert prepare_cache.folder(one) != prepare_cache.folder(other)


def test_somebody_who_brings_model_and_data_prepares_nothing() -> None:
    assert prepare_cache.needed(resolve("qwen3-tiny-tp2", assignments=["model.path=/m"]).recipe)
    own = resolve("qwen3-tiny-tp2", assignments=["model.path=/m", "data.path=/d"])
    assert prepare_cache.needed(own.recipe) is None
