from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement, UsageError

from harness.patches.toy_packages import snapshot
from vimectl.patches import command, series, target
from vimectl.patches.blobs import FileId
from vimectl.patches.selection import Selection
from vimectl.patches.series import Series
from vimectl.patches.target_lock import locked


def fake_release(directory: Path, version: str = "0.16.1") -> Path:
    """Create the metadata of a megatron-core: enough for it to be found."""
    (directory / "megatron" / "core").mkdir(parents=True)
    (directory / "megatron" / "core" / "__init__.py").touch()
    (directory / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: megatron-core\nVersion: {version}\n")
    return directory


def test_status_without_a_stack_finds_packages_in_the_directory(tmp_path: Path) -> None:
    (found,) = command.status(directory=fake_release(tmp_path))
    assert (found.target.package, found.state) == ("megatron-core", "drifted")


def test_stack_supports_only_its_own_version(tmp_path: Path) -> None:
    fake_release(tmp_path, "0.16.0")
    (found,) = command.status("cpu-0.32", tmp_path, ["megatron-core"])
    assert found.state == "unsupported"
    (stated,) = command.status("cpu-0.32", tmp_path, ["megatron-core"], version="0.16.1")
    assert stated.state == "drifted"


def test_missing_selected_package_is_an_error(tmp_path: Path) -> None:
    fake_release(tmp_path, "0.16.1")
    with pytest.raises(UsageError, match="no vllm here, only megatron-core") as caught:
        command.status("cpu-0.32", tmp_path)
    assert caught.value.hint == "name what is meant: megatron-core"
    with pytest.raises(UsageError, match="no vllm here, only megatron-core"):
        command.status(None, tmp_path, ["megatron-core", "vllm"])
    assert [one.target.package for one in command.status(None, tmp_path)] == ["megatron-core"]


def test_package_that_is_not_installed_is_a_missing_requirement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    for package in ("megatron", "vllm"):  # another test may have imported them
        monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(MissingRequirement, match="megatron-core is not installed"):
        command.status("cpu-0.32")
    with pytest.raises(UsageError, match="no known stack is installed"):
        command.status()


@pytest.mark.parametrize("module", ["toy", ""])
def test_package_in_an_archive_is_said_to_be_imported_from_it(
    location: Path, toy_series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    archive = shutil.make_archive(str(tmp_path / "eggs"), "zip", location)
    shutil.rmtree(location)
    folder = tmp_path / "series"
    shutil.copytree(toy_series.directory, folder)
    package = "toy" if module else "toy-cpu"
    (folder / "series.toml").write_text(f'package = "{package}"\nversion = "1.0"\nmodule = "{module}"\n')
    monkeypatch.setattr("sys.path", [archive, *sys.path])
    with pytest.raises(MissingRequirement, match=f"{package} is imported from the archive {archive}"):
        Selection(series=folder).statuses()


def test_status_recovers_only_interrupted_changes(tmp_path: Path) -> None:
    fake_release(tmp_path)
    before = snapshot(tmp_path)
    assert command.recover_and_classify(Selection(directory=tmp_path))[1] == []
    assert snapshot(tmp_path) == before
    (tmp_path / ".vimectl" / "stage").mkdir(parents=True)
    assert [
        message.partition(": ")[2]
        for message in command.recover_and_classify(Selection(directory=tmp_path))[1]
    ] == ["an interrupted change had not begun; its preparation was removed"]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("version", "known", "state"),
    [
        ("0.16.1+local", True, "pristine"),
        ("0.16.2rc1.dev263+g967c5c3bc", True, "pristine"),  # a build between two tags
        ("0.16.2rc1.dev263+g967c5c3bc", False, "unsupported"),
        ("0.16.1.post1", True, "pristine"),
        ("0.17.0", True, "pristine"),
        ("0.17.0", False, "unsupported"),
    ],
)
def test_content_decides_the_series_of_a_version_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, known: bool, state: str
) -> None:
    fake_release(tmp_path, version)
    look = target.TargetFiles.id
    blobs = {path: chain[0] for path, chain in series.load("megatron-core", "0.16.1").chains.items()}

    def found(files: target.TargetFiles, path: str) -> FileId:
        return FileId(blobs[path], 0o100644) if known and path in blobs else look(files, path)

    monkeypatch.setattr(target.TargetFiles, "id", found)
    (one,) = command.status(directory=tmp_path)
    assert one.state == state
    if state == "unsupported":
        assert "the nearest is for 0.16.1 (0 of its 8 files are the same)" in one.note
        assert one.hint == f"vimectl patch port megatron-core --from 0.16.1 --to {version}"
    elif "+local" not in version:
        assert one.note == "the patched files are those of 0.16.1"


def test_status_waits_for_a_change_in_progress(tmp_path: Path) -> None:
    fake_release(tmp_path)
    stage = tmp_path / ".vimectl" / "stage"
    started, ended = threading.Event(), []

    def change() -> None:
        with locked([tmp_path]):
            stage.mkdir()
            started.set()
            time.sleep(0.3)
            stage.rmdir()
            ended.append(True)

    thread = threading.Thread(target=change)
    thread.start()
    started.wait()
    found, messages = command.recover_and_classify(Selection(directory=tmp_path))
    assert ended  # status did not return before
    thread.join()
    assert (messages, len(found)) == ([], 1)
