"""Write minimal ELF shared libraries, to test builds that cannot be distributed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}
_NEEDED, _STRTAB, _STRSZ = 1, 5, 10
_PT_LOAD, _PT_DYNAMIC = 1, 2
_HEADER_SIZE, _SEGMENT_SIZE = 64, 56

TORCH_MODE = ("tms_pause", "tms_resume", "tms_torch_malloc", "tms_torch_free")
ASCEND_PRELOAD = ("aclrtMallocAlign32", "aclrtFree", "tms_pause", "tms_resume")


@dataclass
class ElfFile:
    """The properties of a library: ``functions`` are the names of its symbols, ``text`` is in it as bytes."""

    machine: str = "aarch64"
    needed: Sequence[str] = ("libascendcl.so", "libc.so.6")
    functions: Sequence[str] = TORCH_MODE
    text: bytes = b""

    def content(self) -> bytes:
        """Return the file: header, two segments, strings, tags, text."""
        names = [*self.needed, *self.functions]
        places = list(accumulate((len(name) + 1 for name in names), initial=1))
        strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
        start = _HEADER_SIZE + 2 * _SEGMENT_SIZE
        tags = [(_NEEDED, place) for place, _ in zip(places, self.needed, strict=False)]
        tags += [(_STRTAB, start), (_STRSZ, len(strings)), (0, 0)]
        dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
        at_dynamic = start + len(strings)
        segments = _segment(_PT_LOAD, 0, at_dynamic + len(dynamic) + len(self.text))
        segments += _segment(_PT_DYNAMIC, at_dynamic, len(dynamic))
        return self._header() + segments + strings + dynamic + self.text

    def _header(self) -> bytes:
        ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
        machine = MACHINES[self.machine]
        places = (0, _HEADER_SIZE, 0)  # entry, segments, sections
        return ident + struct.pack(
            "<HHIQQQIHHHHHH", 3, machine, 1, *places, 0, _HEADER_SIZE, _SEGMENT_SIZE, 2, 0, 0, 0
        )


def _segment(kind: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 4, offset, offset, offset, size, size, 4)
