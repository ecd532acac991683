"""Read of a shared library what the loader reads: machine, needed libraries, exported symbols."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import islice

# Far above any real build (some 20 libraries, 1,000 symbols); a crafted file may claim any number.
_MOST_TAGS = 4096
_MOST_SYMBOLS = 20_000

_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


@dataclass(frozen=True)
class Library:
    """``machine`` is as ``uname -m`` names it, or the ELF constant of one that is not in use here."""

    machine: str
    needed: tuple[str, ...]
    exported: frozenset[str]


def read_library(content: bytes) -> Library | None:
    """Return what a shared library says of itself, or None when it is not a readable ELF library."""
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile

    try:
        file = ELFFile(io.BytesIO(content))
        dynamic = next(segment for segment in file.iter_segments() if isinstance(segment, DynamicSegment))
        tags = list(islice(dynamic.iter_tags(), _MOST_TAGS))
        symbols = list(islice(dynamic.iter_symbols(), _MOST_SYMBOLS))
        return Library(
            _MACHINES.get(file["e_machine"], str(file["e_machine"])),
            tuple(str(vars(tag)["needed"]) for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
            frozenset(str(symbol.name) for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"),
        )
    except Exception:
        # A truncated or crafted file makes the parser fail in as many ways as there are fields in the
        # format; whichever it is, the loader could not use the file either.
        return None
