"""Read the versions of the C and C++ libraries that compiled extensions need, and that libstdc++ has."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vimectl.doctor.facts.loader import find_library
from vimectl.util.host import Host

# The names are in the table of strings at the start of a file. That of libstdc++ ends in its first 400 KB.
_BYTES = 2**20
# One pattern for each family: a literal start is searched much faster than alternatives.
_FAMILIES = {
    name: re.compile(rb"%b_(\d{1,9}(?:\.\d{1,9})+)\0" % name.encode())
    for name in ("GLIBC", "GLIBCXX", "CXXABI")
}
LIBSTDCXX = "libstdc++.so.6"

Version = tuple[int, ...]


def read_symbol_versions(host: Host, path: str) -> dict[str, Version]:
    """Return the latest version of each family (GLIBC, GLIBCXX, CXXABI) that a shared library names."""
    start = host.read_start(path, _BYTES) or b""
    versions = {
        family: [tuple(map(int, text.split(b"."))) for text in pattern.findall(start)]
        for family, pattern in _FAMILIES.items()
    }
    return {family: max(found) for family, found in versions.items() if found}


def read_newest(host: Host, paths: tuple[str, ...]) -> dict[str, tuple[Version, str]]:
    """Return the latest version of each family that any of the libraries needs, and which one needs it."""
    found: dict[str, tuple[Version, str]] = {}
    for path in paths:
        for family, version in read_symbol_versions(host, path).items():
            found[family] = max((version, path), found.get(family, ((), "")))
    return found


def read_libstdcxx(host: Host, others: Iterable[str] = ()) -> dict[str, dict[str, Version]]:
    """Return the libstdc++ that the loader finds and those in other directories, each with its versions."""
    paths = [find_library(host, LIBSTDCXX), *(f"{directory}/{LIBSTDCXX}" for directory in others)]
    return {path: read_symbol_versions(host, path) for path in paths if path and host.is_file(path)}
