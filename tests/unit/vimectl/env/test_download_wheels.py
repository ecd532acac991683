"""Downloads from directories that pip is configured with; no index is used."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError

from harness.wheels import write_wheel
from vimectl.env.download_wheels import (
    WheelTarget,
    download_wheel,
    download_wheels,
    link_downloads,
    remove_other_wheels,
)
from vimectl.env.installer import Pip
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import Origin
from vimectl.util.phase_progress import PhaseProgress, ReportPhase

ARM = WheelTarget("3.12", "aarch64", "2.35")


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only source of pip: a compiled package for several targets, and a universal one."""
    folder = tmp_path / "links"
    for tag in (
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_39_aarch64",  # needs a newer glibc
    ):
        write_wheel(folder, "kernels", tag=tag)
    write_wheel(folder, "limited", tag="cp39-abi3-manylinux2014_aarch64")
    write_wheel(folder, "pure")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def lock(links: Path) -> list[Pin]:
    """The pins of a lock that has every file in the directory."""
    lines = []
    for name in ("kernels", "limited", "pure"):
        digests = " ".join(f"--hash=sha256:{sha256_file(path)}" for path in sorted(links.glob(f"{name}-*")))
        lines.append(f"{name}==1.0 {digests}\n")
    file = links.parent / "lock.txt"
    file.write_text("".join(lines))
    return list(read_lock(file).values())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def download(
    pins: list[Pin],
    folder: Path,
    target: WheelTarget | None = ARM,
    origins: Mapping[str, Origin] = MappingProxyType({}),
    report: ReportPhase = print,
) -> None:
    lock_fd = os.open(folder.parent, os.O_RDONLY)
    try:
        pip = Pip(Path(sys.executable), lock_fd, folder.parent / "work")
        download_wheels(pip, pins, folder, origins, report, target)
    finally:
        os.close(lock_fd)


def test_wheels_of_the_target_are_downloaded(links: Path, tmp_path: Path) -> None:
    reports: list[PhaseProgress] = []
    download(lock(links), tmp_path / "wheels", report=reports.append)
    assert names(tmp_path / "wheels") == [
        "kernels-1.0-cp312-cp312-manylinux_2_28_aarch64.whl",
        "limited-1.0-cp39-abi3-manylinux2014_aarch64.whl",
        "pure-1.0-py3-none-any.whl",
    ]
    assert (reports[-1].done, reports[-1].total) == (3, 3)


def test_present_wheels_are_kept_and_others_removed(links: Path, tmp_path: Path) -> None:
    folder, pins = tmp_path / "wheels", lock(links)
    download(pins, folder)
    expected = names(folder)
    (folder / expected[0]).write_bytes(b"partial")
    write_wheel(folder, "older", "0.9")
    (links / "pure-1.0-py3-none-any.whl").unlink()
    download(pins, folder)
    remove_other_wheels(pins, folder)
    assert names(folder) == expected


def test_package_without_a_wheel_for_the_target_is_named(links: Path, tmp_path: Path) -> None:
    x86 = WheelTarget("3.12", "x86_64", "2.35")
    message = r"pip's sources offer no wheel of limited 1\.0 \(sha256 [0-9a-f]{64}\)"
    with pytest.raises(MissingRequirement, match=message) as error:
        download(lock(links), tmp_path / "wheels", x86)
    assert "find-links" in error.value.hint


def test_unreachable_index_is_not_reported_as_a_missing_package(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = lock(links)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free.getsockname()[1]}/simple")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        MissingRequirement, match=r"3 packages: pip's index cannot be reached: .*refused"
    ) as error:
        download(pins, tmp_path / "wheels")
    assert "resumes where it stopped" in error.value.hint


def download_pure(links: Path, folder: Path, digest: str = "") -> Path:
    digest = digest or sha256_file(links / "pure-1.0-py3-none-any.whl")
    return download_wheel("pure", "1.0", digest, folder, lambda done, total: None)


def test_single_wheel_is_downloaded_once(links: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "pure"
    digest = sha256_file(links / "pure-1.0-py3-none-any.whl")
    found = download_pure(links, folder)
    assert sha256_file(found) == digest
    assert list(folder.iterdir()) == [found]
    (links / "pure-1.0-py3-none-any.whl").unlink()  # no source has it any more
    assert download_pure(links, folder, digest=digest) == found
    assert names(tmp_path / "cache") == ["pure"]


def test_single_wheel_with_another_digest_is_refused_and_removed(links: Path, tmp_path: Path) -> None:
    file = links / "pure-1.0-py3-none-any.whl"
    message = f"found .*{file.name} sha256 {sha256_file(file)}, expected {'0' * 64}"
    with pytest.raises(CheckFailed, match=message):
        download_pure(links, tmp_path / "cache", digest="0" * 64)
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_directory_that_cannot_be_created(links: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingRequirement, match="cannot be created: Not a directory"):
        download_pure(links, tmp_path / "file" / "cache")


def test_interpreter_without_pip(links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    with pytest.raises(MissingRequirement, match="has no pip to download pure"):
        download_pure(links, tmp_path / "cache")


@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        ("1.0", CheckFailed, "found {offered} sha256 {digest}, expected {meant}"),
        # A public version does not replace a local one.
        ("1.0+cpu", MissingRequirement, r"gamma 1.0\+cpu: the newest .* offer is 1.0; expected {meant}"),
    ],
)
def test_other_build_of_a_package_with_an_origin_is_refused(
    version: str, error: type[VimeError], message: str, links: Path, tmp_path: Path
) -> None:
    meant = write_wheel(tmp_path / "meant", "gamma", version)
    offered = write_wheel(links, "gamma", files={"gamma.py": b"repacked = True\n"})
    expected = f"{meant.name} sha256 {sha256_file(meant)}"
    values = {"offered": offered, "digest": sha256_file(offered), "meant": re.escape(expected)}
    text = f"gamma=={version} --hash=sha256:{sha256_file(meant)}"
    origin = Origin.model_validate(
        {
            "index": tmp_path.as_uri(),
            "note": "test",
            "files": [{"name": meant.name, "sha256": sha256_file(meant), "note": "the expected file"}],
            "marker": {"path": "gamma.py", "pattern": "x", "meaning": "test"},
        }
    )
    pin = Pin("gamma", version, frozenset({sha256_file(meant)}), text)
    with pytest.raises(error, match=message.format(**values)):
        download([pin], tmp_path / "wheels", None, {"gamma": origin})


def test_linking_tolerates_directories_that_pip_deletes(tmp_path: Path) -> None:
    temporary, wheels = tmp_path / "tmp", tmp_path / "wheels"
    kept = temporary / "pip-0" / "b-1-py3-none-any.whl"
    kept.parent.mkdir(parents=True)
    kept.touch()
    wheels.mkdir()
    ended = threading.Event()

    def create_and_delete() -> None:
        number = 0
        while not ended.is_set():
            folder = temporary / f"pip-{(number := number + 1)}"
            folder.mkdir()
            (folder / "a-1-py3-none-any.whl").touch()
            shutil.rmtree(folder)

    pip = threading.Thread(target=create_and_delete)
    pip.start()
    try:
        for _ in range(1000):
            link_downloads(temporary, wheels)
    finally:
        ended.set()
        pip.join()
    assert (wheels / kept.name).samefile(kept)
