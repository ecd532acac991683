"""Verdicts on released wheels, and on builds known by a partial digest."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.memory_saver.elf_file import ASCEND_PRELOAD, TORCH_MODE, ElfFile
from harness.needs import unavailable
from vimectl.env.memory_saver import known_builds
from vimectl.env.memory_saver.known_builds import KnownBuild
from vimectl.env.memory_saver.verify import SaverBuild, all_good, classify, verify_installed, verify_path
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import CommandResult, Host

RELEASES = {
    "x86_64": {"0.0.8": 1, "0.0.9": 2, "0.0.9.post1": 6, "0.0.10": 6},
    "aarch64": {"0.0.9.post1": 6, "0.0.10": 6},
}
ASCEND = load_stack("ascend-0.22")


def machine(name: str, root: Path = Path("/")) -> Host:
    return Host(root, {}, lambda argv, timeout: CommandResult(0, f"{name}\n"))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released wheels, downloaded once."""
    folder = tmp_path_factory.mktemp("released")
    children = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
                *("--platform", f"manylinux2014_{architecture}", "--dest", str(folder)),
                f"torch_memory_saver=={version}",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for architecture, versions in RELEASES.items()
        for version in versions
    ]
    errors = [child.communicate()[1] for child in children]
    if any(child.returncode != 0 for child in children):
        message = f"the released wheels cannot be fetched: {' '.join(errors).strip()}"
        unavailable(message)
    return folder


@pytest.mark.needs("network")
def test_released_wheels_are_cuda_builds_and_wrong_for_ascend(released: Path) -> None:
    for architecture, versions in RELEASES.items():
        for version, count in versions.items():
            (wheel,) = released.glob(f"torch_memory_saver-{version}-*_{architecture}.whl")
            found = verify_path(wheel, machine(architecture), ASCEND)
            assert len(found) == count
            assert {(b.verdict, b.backend, b.machine, b.match) for b in found} == {
                ("wrong-backend", "cuda", architecture, "sha256")
            }
            assert {b.hook_mode for b in found} == (
                {"preload"} if version == "0.0.8" else {"torch", "preload"}
            )
            assert all("libcuda.so.1" in b.needed for b in found)
            assert not all_good(found, ASCEND)
            assert all(version in b.name and architecture in b.name for b in found)


@pytest.mark.needs("network")
def test_released_wheel_is_good_without_a_stack_and_wrong_on_another_machine(
    released: Path,
) -> None:
    (wheel,) = released.glob("torch_memory_saver-0.0.9-*_x86_64.whl")
    assert {b.verdict for b in verify_path(wheel, machine("x86_64"), None)} == {"known-good"}
    assert {b.verdict for b in verify_path(wheel, machine("aarch64"), None)} == {"wrong-machine"}


@pytest.mark.needs("network")
def test_unpacked_wheel_and_installed_package_are_found(released: Path, tmp_path: Path) -> None:
    (wheel,) = released.glob("torch_memory_saver-0.0.9-*_x86_64.whl")
    site = tmp_path / "usr/local/lib/python3.11/site-packages"
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/python3.11").touch()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    unpacked = verify_path(site, machine("x86_64"), None)
    package = verify_path(site / "torch_memory_saver", machine("x86_64"), None)
    installed = verify_installed(machine("x86_64", tmp_path), None)
    assert len(unpacked) == 2
    # Without a stack either hook mode may be used.
    assert all(build.loads for build in installed)
    found = [replace(b, loads=None, why="", path=f"{tmp_path}{b.path}") for b in installed]
    assert unpacked == package == sorted(found, key=lambda build: build.path)


@pytest.mark.needs("network")
def test_one_changed_byte_makes_a_build_unknown(released: Path, tmp_path: Path) -> None:
    (wheel,) = released.glob("torch_memory_saver-0.0.8-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        content = bytearray(archive.read("torch_memory_saver_cpp.abi3.so"))
    content[-1] ^= 1
    (tmp_path / "torch_memory_saver_cpp.abi3.so").write_bytes(content)
    (found,) = verify_path(tmp_path, machine("x86_64"), None)
    assert (found.verdict, found.match, found.name) == ("unknown", None, None)


def test_published_prefixes_identify_with_a_warning() -> None:
    for prefix in ("03adebff", "83181484"):
        build, match = known_builds.identify(prefix + "0" * 24, "0" * 64, known_builds.known_builds())
        assert (build.verdict, build.backend, match) == ("known-good", "ascend", "md5-prefix")
        assert "do not authenticate" in build.note


def classified(
    library: ElfFile, backend: str | None, machine: str | None, *, prefixed: bool = False
) -> SaverBuild:
    """Classify a generated library; with ``prefixed`` it is known for Ascend by eight digits."""
    content = library.content()
    digits = hashlib.md5(content, usedforsecurity=False).hexdigest()[:8]
    known = KnownBuild(name="x", verdict="known-good", backend="ascend", md5_prefix=digits, note="eight")
    return classify("x.so", content, backend, machine, [known] if prefixed else [])


def test_prefix_match_does_not_override_the_backend() -> None:
    other = classified(ElfFile(machine="x86_64"), "ascend", "aarch64", prefixed=True)
    assert (other.verdict, other.match) == ("wrong-machine", "md5-prefix")
    assert other.note == "built for x86_64, this machine is aarch64"
    cuda = classified(ElfFile(needed=["libcudart.so.12"]), "ascend", "aarch64", prefixed=True)
    assert (cuda.verdict, cuda.match) == ("wrong-backend", None)
    # Without a stack too: a CUDA build is not the Ascend build with the same eight digits.
    unneeded = classified(ElfFile(needed=["libcudart.so.12"]), None, None, prefixed=True)
    assert unneeded.verdict == "unknown"


def test_known_build_without_a_runtime_has_the_backend_that_is_known() -> None:
    found = classified(ElfFile(needed=["libc.so.6"]), "ascend", "aarch64", prefixed=True)
    assert (found.verdict, found.backend) == ("known-good", "ascend")


def test_note_names_wrong_backend_and_machine() -> None:
    found = classified(ElfFile(machine="x86_64", needed=["libamdhip64.so.6"]), "ascend", "aarch64")
    assert (found.verdict, found.backend, found.machine) == ("wrong-backend", "rocm", "x86_64")
    assert found.note == ("built for rocm, the stack needs ascend; built for x86_64, this machine is aarch64")


@pytest.mark.parametrize(
    ("functions", "mode"), [(TORCH_MODE, "torch"), (ASCEND_PRELOAD, "preload"), (["aclrtFree"], None)]
)
def test_hook_mode_is_that_of_the_functions(functions: Sequence[str], mode: str | None) -> None:
    found = classified(ElfFile(functions=functions), None, None)
    assert (found.hook_mode, found.verdict) == (mode, "unknown")
    assert ("not this library" in found.note) is (mode is None)


def test_only_the_strongest_digest_is_compared() -> None:
    known = KnownBuild(
        name="x", verdict="known-good", backend="cuda", sha256="a" * 64, md5="b" * 32, note="both"
    )
    assert known.match("b" * 32, "a" * 64) == "sha256"
    assert known.match("b" * 32, "c" * 64) is None
