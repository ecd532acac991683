"""Read the machine and the needed libraries of a shared library. The format is described in elf(5)."""

from __future__ import annotations

import struct

_MACHINES = {62: "x86_64", 183: "aarch64"}  # EM_X86_64, EM_AARCH64
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
# Released builds have 10 segments, 31 tags and names of 18 bytes. The limits bound the work for any file.
_MAX_SEGMENTS, _MAX_TAGS, _MAX_NAME = 64, 256, 255


def read_elf(content: bytes) -> tuple[str, tuple[str, ...]] | None:
    """Return the machine of a 64-bit little-endian shared library, and the names of the libraries it needs.

    The machine is as in ``uname -m``, else its ELF number. Return None for any other file.
    """
    if not content.startswith(b"\x7fELF\x02\x01"):
        return None
    try:
        (machine,) = struct.unpack_from("<H", content, 18)
        (table,) = struct.unpack_from("<Q", content, 32)
        size, count = struct.unpack_from("<HH", content, 54)
        places = (table + size * number for number in range(min(count, _MAX_SEGMENTS)))
        segments = [struct.unpack_from("<I4xQQ8xQ", content, place) for place in places]
        dynamic = next(offset for kind, offset, _, _ in segments if kind == _PT_DYNAMIC)
        tags = [struct.unpack_from("<qQ", content, dynamic)]
        while tags[-1][0] != _DT_NULL and len(tags) < _MAX_TAGS:
            tags.append(struct.unpack_from("<qQ", content, dynamic + 16 * len(tags)))
        address = next(value for tag, value in tags if tag == _DT_STRTAB)
        strings = next(
            offset + address - start
            for kind, offset, start, length in segments
            if kind == _PT_LOAD and start <= address < start + length
        )
        starts = [strings + value for tag, value in tags if tag == _DT_NEEDED]
        names = [content[start : content.index(b"\0", start, start + _MAX_NAME)] for start in starts]
    except (struct.error, OverflowError, StopIteration, ValueError):
        return None  # truncated or crafted; the loader could not use it either
    known = _MACHINES.get(machine, f"ELF machine {machine}")
    return known, tuple(name.decode(errors="replace") for name in names)
