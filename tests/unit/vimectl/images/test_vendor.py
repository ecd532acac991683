"""Collecting the sources of an image; every source is on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from harness.git import commit
from harness.images.user_stack import UserStack
from harness.needs import mounted_disk
from harness.wheels import write_wheel
from vimectl.env import vimectl_wheel
from vimectl.images import vendor
from vimectl.images.manifest import FILE, SourceManifest
from vimectl.images.plan import make_plan
from vimectl.images.source_folder import check_for_plan

VENDOR = [sys.executable, "-m", "vimectl", "image", "vendor", "--stack"]


def collect(own: UserStack, folder: Path) -> SourceManifest:
    return vendor.collect(make_plan(str(own.file)), folder, lambda now: None)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def inodes(folder: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_collected_folder_is_complete(own: UserStack, tool: Path, tmp_path: Path) -> None:
    folder = tmp_path / "offline"
    made = make_plan(str(own.file))
    assert {source.kind for source in vendor.missing_sources(made, folder)} == {
        *("stack", "lock", "own-wheel", "patches", "git", "wheel")
    }
    collected = collect(own, folder)
    assert check_for_plan(folder, made, tool) == collected
    paths = {entry.name: entry.path for entry in collected.sources}
    assert paths["trainer"] == f"sources/trainer-{own.commit}.tar.gz"
    assert paths["weights"] == "wheels/weights-1.0-py3-none-any.whl"
    assert paths["megatron-core"] == paths["vimectl"]  # the own wheel contains the patches
    assert set(contents(folder)) == {FILE, *paths.values()}
    assert {source.kind for source in vendor.missing_sources(made, folder)} == {"own-wheel", "patches"}


def test_second_call_changes_nothing_and_needs_no_source(own: UserStack, tmp_path: Path) -> None:
    first = collect(own, tmp_path / "one")
    collect(own, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    (own.links / "weights-1.0-py3-none-any.whl").unlink()
    own.repository.rename(tmp_path / "moved")
    before = inodes(tmp_path / "one")
    assert collect(own, tmp_path / "one") == first
    assert inodes(tmp_path / "one") == before


def test_interrupted_call_resumes_and_leaves_no_manifest(own: UserStack, tool: Path, tmp_path: Path) -> None:
    made, folder = make_plan(str(own.file)), tmp_path / "offline"
    wheel = own.links / "weights-1.0-py3-none-any.whl"
    aside = wheel.rename(tmp_path / wheel.name)
    with pytest.raises(MissingRequirement, match=r"pip's sources offer no file of weights 1\.0"):
        collect(own, folder)
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        check_for_plan(folder, made, tool)
    aside.rename(wheel)
    own.repository.rename(tmp_path / "aside")
    with pytest.raises(MissingRequirement, match="cannot be fetched"):
        collect(own, folder)
    (tmp_path / "aside").rename(own.repository)
    wheel.unlink()  # already in the folder
    collect(own, folder)
    check_for_plan(folder, made, tool)


def test_altered_files_are_downloaded_again(own: UserStack, tool: Path, tmp_path: Path) -> None:
    made, folder = make_plan(str(own.file)), tmp_path / "offline"
    collect(own, folder)
    expected = contents(folder)
    for path in folder.glob("*/*"):
        path.write_bytes(b"altered")
    (folder / "wheels" / "evil-1.0-py3-none-any.whl").touch()
    with pytest.raises(CheckFailed, match="has sha256"):
        check_for_plan(folder, made, tool)
    collect(own, folder)
    assert contents(folder) == expected


def test_folder_for_another_pin_is_detected_and_updated(own: UserStack, tool: Path, tmp_path: Path) -> None:
    folder = tmp_path / "offline"
    collect(own, folder)
    (own.repository / "more").touch()
    newer = commit(own.repository)
    own.file.write_text(own.file.read_text().replace(own.commit, newer))
    again = tmp_path / "again.toml"  # stacks are cached in a process
    again.write_text(own.file.read_text())
    again.with_suffix(".txt").write_text(own.file.with_suffix(".txt").read_text())
    made = make_plan(str(again))
    with pytest.raises(CheckFailed, match=f"trainer-{own.commit}.* is not in .*trainer-{newer}.* is missing"):
        check_for_plan(folder, made, tool)
    vendor.collect(made, folder, lambda now: None)
    check_for_plan(folder, made, tool)
    assert [path.name for path in (folder / "sources").iterdir()] == [f"trainer-{newer}.tar.gz"]


def test_wheel_may_have_a_local_version_that_its_pin_lacks(
    own: UserStack, tool: Path, tmp_path: Path
) -> None:
    wheel = write_wheel(own.links, "weights", "1.0+npu")
    own.file.with_suffix(".txt").write_text(f"weights==1.0 --hash=sha256:{sha256_file(wheel)}\n")
    paths = {entry.path for entry in collect(own, tmp_path / "offline").sources}
    assert f"wheels/{wheel.name}" in paths
    check_for_plan(tmp_path / "offline", make_plan(str(own.file)), tool)


def test_folder_for_another_machine_is_detected(own: UserStack, tool: Path, tmp_path: Path) -> None:
    made = {machine: make_plan(str(own.file), machine=machine) for machine in ("x86_64", "aarch64")}
    folder = tmp_path / "offline"
    vendor.collect(made["x86_64"], folder, lambda now: None)
    with pytest.raises(CheckFailed, match="machine x86_64, to be built: aarch64") as error:
        check_for_plan(folder, made["aarch64"], tool)
    assert f"image vendor --stack {own.file} --machine aarch64 --offline {folder}" in error.value.hint


def test_foreign_folder_is_unchanged(own: UserStack, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"it holds thesis\.tex"):
        collect(own, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_call_resumes_after_being_killed(own: UserStack, tool: Path, tmp_path: Path) -> None:
    made, folder = make_plan(str(own.file)), tmp_path / "offline"
    command = [*VENDOR, str(own.file), "--offline", str(folder)]
    for fresh in ("vimectl", "stack.toml", "sources"):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and not (folder / fresh).exists():
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "own for" in done.stdout
    check_for_plan(folder, made, tool)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_folder_is_valid_for_an_installed_vimectl_with_the_same_files(
    own: UserStack, tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vimectl_wheel, "revision", lambda: "1" * 40)
    collect(own, tmp_path / "offline")
    monkeypatch.setattr(vimectl_wheel, "revision", lambda: "")  # an installed vimectl has no commit
    check_for_plan(tmp_path / "offline", make_plan(str(own.file)), tool)


def test_ctrl_c_stops_a_download_from_a_silent_server(own: UserStack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/trainer"
        own.file.write_text(own.file.read_text().replace(str(own.repository), url))
        command = [*VENDOR, str(own.file), "--offline", str(tmp_path / "offline")]
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        connection, _ = silent.accept()  # git has connected
        with connection:
            started = psutil.Process(child.pid).children(recursive=True)
            child.send_signal(signal.SIGINT)
            _, output = child.communicate(timeout=30)
    assert child.returncode == 130
    assert f"resume with: vimectl image vendor --stack {own.file}" in output
    assert started
    # A child of git that has exited may still be a zombie.
    assert not [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_ctrl_c_stops_a_download_from_a_silent_index(
    own: UserStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "600")
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        command = [*VENDOR, str(own.file), "--offline", str(tmp_path / "offline")]
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        connection, _ = silent.accept()
        with connection:
            child.send_signal(signal.SIGINT)
            _, output = child.communicate(timeout=30)
    assert child.returncode == 130
    assert f"resume with: vimectl image vendor --stack {own.file}" in output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory; ``resize`` sets its size."""
    with mounted_disk(tmp_path / "disk", size="50%") as disk:
        yield disk


def resize(disk: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)


def test_full_disk_is_reported_and_the_call_resumes(
    own: UserStack, tool: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # make the wheel of vimectl
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(own.links))
    (own.repository / "weights").write_bytes(os.urandom(1024 * 1024))
    own.file.write_text(own.file.read_text().replace(own.commit, commit(own.repository)))
    made, folder = make_plan(str(own.file)), small_disk / "offline"
    wheel = tool.stat().st_size // 1024
    # Too small for the own wheel, for the fetched repository, and for its archive.
    for kib in (wheel // 2, wheel + 512, wheel + 1536):
        resize(small_disk, kib)
        with pytest.raises(MissingRequirement, match="no space left") as error:
            vendor.collect(made, folder, lambda now: None)
        assert "another disk" in error.value.hint
        with pytest.raises(UsageError, match=r"no manifest\.json"):
            check_for_plan(folder, made, tool)
    resize(small_disk, 16 * 1024)
    vendor.collect(made, folder, lambda now: None)
    check_for_plan(folder, made, tool)
