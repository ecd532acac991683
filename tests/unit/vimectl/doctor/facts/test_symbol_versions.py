"""The symbol versions of shared libraries: of small ones, and of what runs this test."""

from __future__ import annotations

from pathlib import Path

from harness.memory_saver.elf_file import ElfFile
from vimectl.doctor.facts.symbol_versions import read_libstdcxx, read_newest, read_symbol_versions
from vimectl.util.host import Host


def write(root: Path, path: str, *versions: str) -> str:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(ElfFile(text=b"".join(one.encode() + b"\0" for one in versions)).content())
    return path


def test_latest_version_of_each_family_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "/a.so", "GLIBC_2.4", "GLIBC_2.17", "GLIBC_2.9", "GLIBCXX_3.4.9", "CXXABI_1.3.11")
    found = read_symbol_versions(Host(tmp_path, {}), path)
    assert found == {"GLIBC": (2, 17), "GLIBCXX": (3, 4, 9), "CXXABI": (1, 3, 11)}


def test_names_that_are_no_versions_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, "/a.so", "GLIBC_PRIVATE", "GLIBC_2.17 or later", "CXXABI_TM_1")
    assert read_symbol_versions(Host(tmp_path, {}), path) == {}


def test_library_that_needs_most_is_named(tmp_path: Path) -> None:
    paths = (write(tmp_path, "/a.so", "GLIBC_2.17"), write(tmp_path, "/b.so", "GLIBC_2.34"), "/none.so")
    assert read_newest(Host(tmp_path, {}), paths) == {"GLIBC": ((2, 34), "/b.so")}


def test_library_that_the_loader_finds_is_first(tmp_path: Path) -> None:
    write(tmp_path, "/usr/lib64/libstdc++.so.6", "GLIBCXX_3.4.30")
    write(tmp_path, "/opt/conda/lib/libstdc++.so.6", "GLIBCXX_3.4.34")
    found = read_libstdcxx(Host(tmp_path, {}), ("/opt/conda/lib", "/none"))
    assert list(found) == ["/usr/lib64/libstdc++.so.6", "/opt/conda/lib/libstdc++.so.6"]


def test_library_of_this_machine_has_versions() -> None:
    assert read_symbol_versions(Host(), "/proc/self/exe").get("GLIBC", (0,)) >= (2, 2)
