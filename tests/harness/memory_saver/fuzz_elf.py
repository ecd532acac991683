"""Change shared libraries at random and read them."""

from __future__ import annotations

import random
import struct
import sysconfig
from pathlib import Path

from harness.memory_saver.elf_file import ASCEND_PRELOAD, ElfFile
from vimectl.env.memory_saver.elf import read_elf

EDGES = [0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1]


def changed(content: bytes, chance: random.Random) -> bytes:
    """Return a library with a few other bytes or fields, or with a part removed or repeated."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 10)):
        # Most of what the reader looks at is near the beginning.
        end = min(chance.choice([64, 512, 1024, 8192, len(data)]), len(data))
        if end < 16:
            break
        at = chance.randrange(end - 8)
        number = chance.choice([*EDGES, len(data), chance.randrange(len(data)), 1 << chance.randrange(64)])
        kind = chance.random()
        if kind < 0.4:
            data[at] = chance.randrange(256)
        elif kind < 0.7:
            struct.pack_into("<Q", data, at & ~7, number)
        elif kind < 0.85:
            struct.pack_into("<I", data, at & ~3, number & 0xFFFFFFFF)
        elif kind < 0.9:
            del data[at:]
        elif kind < 0.95:
            del data[at : at + chance.randrange(64)]
        else:
            data[at:at] = data[at : at + chance.randrange(4096)]
    return bytes(data)


def read_changed_libraries(count: int, seed: int) -> int:
    """Read ``count`` libraries that were changed at random, and return how many of them were readable."""
    chance = random.Random(seed)
    libraries = sorted((Path(sysconfig.get_path("stdlib")) / "lib-dynload").glob("*.so"))[::10]
    contents = [path.read_bytes() for path in libraries]
    contents += [ElfFile().content(), ElfFile(exported=ASCEND_PRELOAD).content()]
    return sum(read_elf(changed(chance.choice(contents), chance)) is not None for _ in range(count))
