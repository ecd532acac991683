"""Change libraries at random and read them, for as long as one likes.

    python -m harness.memory_saver.fuzz_elf [SECONDS] [SEED] [LIBRARY...]

What it must not find: an exception, or more than a second of the processor for one file. Without libraries to
start from it takes written ones and those of the interpreter.
"""

from __future__ import annotations

import random
import struct
import sys
import sysconfig
import time
from pathlib import Path

from harness.memory_saver.elf_file import ASCEND_PRELOAD, ElfFile
from vimectl.env.memory_saver.elf import read_library

EDGES = [0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1]


def changed(content: bytes, chance: random.Random) -> bytes:
    """A few bytes or fields of a library are others, or a part of it is gone or there twice."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 10)):
        # Most of what is read stands near the beginning.
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


def main(seconds: float, seed: int, paths: list[str]) -> None:
    chance = random.Random(seed)
    libraries = [Path(path) for path in paths] or [
        *sorted((Path(sysconfig.get_path("stdlib")) / "lib-dynload").glob("*.so"))[::10]
    ]
    contents = [path.read_bytes() for path in libraries]
    contents += [ElfFile().content(), ElfFile(exported=ASCEND_PRELOAD).content()]
    tried = readable = 0
    longest = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = changed(chance.choice(contents), chance)
        began = time.process_time()
        try:
            readable += read_library(content) is not None
        finally:
            longest = max(longest, time.process_time() - began)
            if longest > 1 or sys.exc_info()[0]:
                Path("found.so").write_bytes(content)
        assert longest <= 1, "found.so took more than a second"
        tried += 1
    print(f"seed {seed}: {tried} files, {readable} of them readable, at most {longest:.2f} s for one")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *["60", "0"][len(sys.argv) - 1 :]]
    main(float(arguments[0]), int(arguments[1]), arguments[2:])
