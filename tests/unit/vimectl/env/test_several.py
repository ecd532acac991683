"""The wheels of several pins for another machine, from folders that pip is configured with."""

from __future__ import annotations

import socket
import zipfile
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.env.download_wheels import download_wheels, remove_other_wheels
from vimectl.env.download_wheels import WheelTarget
from vimectl.util.phase_progress import PhaseProgress
from vimectl.stacks.lock import Pin, read_lock

ARM = WheelTarget("3.12", "aarch64", "2.35")


def wheel(folder: Path, name: str, tag: str, version: str = "1.0") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiled package for several machines and interpreters, and one that is for all of them."""
    folder = tmp_path / "links"
    for tag in (
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_39_aarch64",  # needs a newer C library
    ):
        wheel(folder, "kernels", tag)
    wheel(folder, "limited", "cp39-abi3-manylinux2014_aarch64")
    wheel(folder, "pure", "py3-none-any")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def pins(links: Path) -> list[Pin]:
    """A lock of all files that there are."""
    lines = []
    for name in ("kernels", "limited", "pure"):
        digests = " ".join(f"--hash=sha256:{sha256_file(path)}" for path in sorted(links.glob(f"{name}-*")))
        lines.append(f"{name}==1.0 {digests}\n")
    lock = links.parent / "lock.txt"
    lock.write_text("".join(lines))
    return list(read_lock(lock).values())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_those_of_the_machine_and_interpreter_are_fetched(links: Path, tmp_path: Path) -> None:
    told: list[PhaseProgress] = []
    download_wheels(pins(links), tmp_path / "wheels", ARM, {}, told.append)
    assert names(tmp_path / "wheels") == [
        "kernels-1.0-cp312-cp312-manylinux_2_28_aarch64.whl",
        "limited-1.0-cp39-abi3-manylinux2014_aarch64.whl",
        "pure-1.0-py3-none-any.whl",
    ]
    assert (told[-1].done, told[-1].total) == (3, 3)
    assert names(tmp_path) == ["links", "lock.txt", "wheels"]  # no folder of work is left


def test_what_is_there_is_not_fetched_and_others_are_removed(links: Path, tmp_path: Path) -> None:
    folder, wanted = tmp_path / "wheels", pins(links)
    download_wheels(wanted, folder, ARM, {}, lambda now: None)
    whole = names(folder)
    (folder / whole[0]).write_bytes(b"cut off")
    wheel(folder, "older", "py3-none-any", "0.9")
    (links / "pure-1.0-py3-none-any.whl").unlink()
    download_wheels(wanted, folder, ARM, {}, lambda now: None)
    remove_other_wheels(wanted, folder)
    assert names(folder) == whole


def test_a_package_without_a_wheel_for_the_machine_is_named(links: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match=r"no wheel of limited 1\.0 \(sha256 [0-9a-f]{64}\)"):
        download_wheels(pins(links), tmp_path / "wheels", WheelTarget("3.12", "x86_64", "2.35"), {}, print)


def test_a_file_with_another_digest_is_named_with_both(links: Path, tmp_path: Path) -> None:
    wanted = pins(links)
    file = links / "pure-1.0-py3-none-any.whl"
    meant = sha256_file(file)
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(CheckFailed, match=f"found .*pure-1.0.* sha256 {sha256_file(file)}, expected {meant}"):
        download_wheels(wanted, tmp_path / "wheels", ARM, {}, print)


def test_an_index_that_cannot_be_reached_is_told_from_one_that_lacks_a_package(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pins(links)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free.getsockname()[1]}/simple")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        MissingRequirement, match=r"3 packages: pip's index cannot be reached: .*refused"
    ) as error:
        download_wheels(wanted, tmp_path / "wheels", ARM, {}, print)
    assert "goes on where it stopped" in error.value.hint
