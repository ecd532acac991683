"""Write minimal ELF shared libraries, to test builds that cannot be distributed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

MACHINES = {"x86_64": 62, "aarch64": 183, "EM_RISCV": 243}
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT = 1, 4, 5, 6, 10, 11
_PT_LOAD, _PT_DYNAMIC, _PT_NOTE = 1, 2, 4
_HEADER_SIZE, _SEGMENT_SIZE, _SYMBOL_SIZE = 64, 56, 24

TORCH_MODE = ("tms_pause", "tms_resume", "tms_torch_malloc", "tms_torch_free")
ASCEND_PRELOAD = ("aclrtMallocAlign32", "aclrtFree", "tms_pause", "tms_resume")


@dataclass
class ElfFile:
    """The properties of a library. ``text`` is in it as bytes, like a string constant."""

    machine: str = "aarch64"
    needed: Sequence[str] = ("libascendcl.so", "libc.so.6")
    exported: Sequence[str] = TORCH_MODE
    imported: Sequence[str] = ("aclrtMalloc",)
    build_id: bytes = bytes(range(20))
    text: bytes = b"TMS_INIT_ENABLE\0"
    tags: Sequence[tuple[int, int]] = field(default_factory=list)

    def content(self) -> bytes:
        """Return the file: header, three segments, strings, symbols, their hash table, tags, note, text."""
        names = [*self.needed, *self.exported, *self.imported]
        places = dict(zip(names, accumulate((len(name) + 1 for name in names), initial=1), strict=False))
        strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
        symbols = bytes(_SYMBOL_SIZE)
        symbols += b"".join(struct.pack("<IBBHQQ", places[n], 0x12, 0, 1, 0, 0) for n in self.exported)
        symbols += b"".join(struct.pack("<IBBHQQ", places[n], 0x12, 0, 0, 0, 0) for n in self.imported)
        count = len(symbols) // _SYMBOL_SIZE
        hashes = struct.pack("<II", 1, count) + bytes(4 * (1 + count))
        note = struct.pack("<III", 4, len(self.build_id), 3) + b"GNU\0" + self.build_id
        start = _HEADER_SIZE + 3 * _SEGMENT_SIZE
        at_symbols = start + len(strings)
        at_hashes = at_symbols + len(symbols)
        at_dynamic = at_hashes + len(hashes)
        tags = [(_NEEDED, places[name]) for name in self.needed]
        tags += [(_HASH, at_hashes), (_STRTAB, start), (_SYMTAB, at_symbols)]
        tags += [(_STRSZ, len(strings)), (_SYMENT, _SYMBOL_SIZE), *self.tags, (0, 0)]
        dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
        at_note = at_dynamic + len(dynamic)
        end = at_note + len(note) + len(self.text)
        segments = _segment(_PT_LOAD, 0, end)
        segments += _segment(_PT_DYNAMIC, at_dynamic, len(dynamic)) + _segment(_PT_NOTE, at_note, len(note))
        return self._header() + segments + strings + symbols + hashes + dynamic + note + self.text

    def _header(self) -> bytes:
        ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
        machine = MACHINES[self.machine]
        places = (0, _HEADER_SIZE, 0)  # entry, segments, sections
        return ident + struct.pack(
            "<HHIQQQIHHHHHH", 3, machine, 1, *places, 0, _HEADER_SIZE, _SEGMENT_SIZE, 3, 0, 0, 0
        )


def _segment(kind: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 4, offset, offset, offset, size, size, 4)
