"""Extension modules: what their names and contents say of the Python and machine that they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.memory_saver.elf_file import ElfFile
from vimectl.doctor.facts.extensions import Extension, read_extensions
from vimectl.stacks.installed import InstalledDistribution
from vimectl.util.host import Host, refuse_command

SITE = "/site-packages"
ITEM = InstalledDistribution("toy-pack", "1.0", SITE, f"{SITE}/toy_pack-1.0.dist-info")


def write(root: Path, path: str, machine: str = "aarch64") -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(ElfFile(machine=machine).content())


def read(root: Path) -> list[Extension] | None:
    return read_extensions(Host(root, {}, refuse_command), ITEM, "toy_pack")


@pytest.mark.parametrize(
    ("python", "machine", "problem"),
    [
        ("3.11", "aarch64", ""),
        ("", "aarch64", ""),
        ("3.10", "aarch64", "is for Python 3.10"),
        ("3.11", "x86_64", "is for x86_64"),
        ("3.10", "x86_64", "is for x86_64"),
        ("3.11", "", "is no shared library"),
    ],
)
def test_extension_must_be_for_the_interpreter_and_the_machine(
    python: str, machine: str, problem: str
) -> None:
    one = Extension("/a/_C.so", "/a/_C", python, machine)
    assert one.problem("3.11", "aarch64") == problem
    # What is not known is not compared.
    assert one.problem("", "") == (problem if not machine else "")


def test_names_and_contents_are_read(tmp_path: Path) -> None:
    write(tmp_path, f"{SITE}/toy_pack/_C.cpython-310-x86_64-linux-gnu.so")
    write(tmp_path, f"{SITE}/toy_pack/ops/fast.abi3.so", "x86_64")
    write(tmp_path, f"{SITE}/toy_pack/lib/libplain.so")
    write(tmp_path, f"{SITE}/toy_pack/a/b/deep.abi3.so")
    (tmp_path / "site-packages/toy_pack/bad.abi3.so").write_bytes(b"\x7fELF\x02")
    assert read(tmp_path) == [
        Extension(
            f"{SITE}/toy_pack/_C.cpython-310-x86_64-linux-gnu.so", f"{SITE}/toy_pack/_C", "3.10", "aarch64"
        ),
        Extension(f"{SITE}/toy_pack/bad.abi3.so", f"{SITE}/toy_pack/bad", "", ""),
        Extension(f"{SITE}/toy_pack/ops/fast.abi3.so", f"{SITE}/toy_pack/ops/fast", "", "x86_64"),
    ]


def test_only_the_start_of_a_large_library_is_read(tmp_path: Path) -> None:
    write(tmp_path, f"{SITE}/toy_pack/_C.abi3.so")
    with (tmp_path / "site-packages/toy_pack/_C.abi3.so").open("r+b") as file:
        file.truncate(4 * 2**30)
    found = read(tmp_path)
    assert found is not None
    assert [one.machine for one in found] == ["aarch64"]


@pytest.mark.parametrize("path", ["/src/toy", "/src/toy/toy_pack"])
def test_extensions_of_a_checkout_are_found(tmp_path: Path, path: str) -> None:
    write(tmp_path, "/src/toy/toy_pack/_C.abi3.so")
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "__editable__.toy_pack-1.0.pth").write_text(f"{path}\n")
    found = read(tmp_path)
    assert found is not None
    assert [one.path for one in found] == ["/src/toy/toy_pack/_C.abi3.so"]


def test_package_without_a_directory_is_not_judged(tmp_path: Path) -> None:
    assert read(tmp_path) is None
