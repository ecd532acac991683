"""The ELF reader on a real library, on generated ones, and on damaged ones."""

from __future__ import annotations

import io
import os
import random
import struct
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vime_runtime.spec.errors import UsageError

from harness.cpu_limit import cpu_limit
from harness.memory_saver.elf_file import ASCEND_PRELOAD, ElfFile
from vimectl.env.memory_saver.elf import read_elf
from vimectl.env.memory_saver.library_files import LibraryFile, library_files
from vimectl.env.memory_saver.verify import SaverBuild, classify

_LIBRARIES = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
# The smallest library of this interpreter that needs the C library.
REAL = min((c for p in _LIBRARIES.glob("*.so") if b"libc.so" in (c := p.read_bytes())), key=len)
WRITTEN = ElfFile().content()
LARGEST = 32 * 2**20


def classified(content: bytes) -> SaverBuild:
    """Classify a file for an Ascend stack."""
    with cpu_limit():
        return classify(LibraryFile("x.so", content, len(content)), "ascend", "aarch64")


def test_real_library_is_read() -> None:
    library = read_elf(REAL)
    assert library.machine in ("x86_64", "aarch64")
    assert any(name.startswith("libc.so") for name in library.needed)
    assert any(name.startswith("PyInit_") for name in library.exported)


def test_generated_library_is_read() -> None:
    library = read_elf(WRITTEN)
    assert library.machine == "aarch64"
    assert library.needed == ("libascendcl.so", "libc.so.6")
    # Imported symbols are not exported ones.
    assert library.exported == {"tms_pause", "tms_resume", "tms_torch_malloc", "tms_torch_free"}
    assert library.build_id == bytes(range(20)).hex()


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


LONG = [pytest.param(200_000, seed, marks=pytest.mark.exhaustive) for seed in (1, 2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "seed"), [(2_000, 0), *LONG])
def test_fuzz_elf_reads_or_refuses_damaged_libraries(count: int, seed: int) -> None:
    chance = random.Random(seed)
    contents = [path.read_bytes() for path in sorted(_LIBRARIES.glob("*.so"))[::10]]
    contents += [REAL, WRITTEN, ElfFile(exported=ASCEND_PRELOAD).content()]
    damaged = (changed(chance.choice(contents), chance) for _ in range(count))
    readable = sum(classified(content).verdict != "not-elf" for content in damaged)
    assert 0 < readable < count


@given(st.binary(max_size=256))
def test_anything_else_is_not_elf(content: bytes) -> None:
    assert classified(b"\x7fELF" + content).verdict == "not-elf"


def test_truncated_library_is_not_elf() -> None:
    assert {classified(WRITTEN[:length]).verdict for length in range(400)} == {"not-elf"}


def _many_sections() -> bytes:
    """65,535 string sections to search for the one of the tags."""
    hostile = bytearray(WRITTEN)
    struct.pack_into("<Q", hostile, 40, len(hostile))
    struct.pack_into("<HHH", hostile, 58, 64, 0xFFFF, 0)
    return bytes(hostile) + struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64, 64, 0, 0, 8, 0) * 0xFFFF


def _many_segments() -> bytes:
    """65,534 note segments as long as the file before the dynamic segment."""
    hostile = bytearray(WRITTEN)
    struct.pack_into("<Q", hostile, 32, len(hostile))
    struct.pack_into("<H", hostile, 56, 0xFFFE)
    note = struct.pack("<IIQQQQQQ", 4, 4, 0, 0, 0, LARGEST // 2, LARGEST // 2, 4)
    return bytes(hostile) + note * 0xFFFD + WRITTEN[64 + 56 : 64 + 2 * 56]


def _endless_name() -> bytes:
    """The name of a needed library has no end."""
    library = ElfFile(needed=("libascendcl.so",) * 40).content()
    # The strings start after header and segments; nothing behind them is zero.
    return library[:232] + b"\x01" * (LARGEST - 232)


def _long_chain() -> bytes:
    """A GNU hash table whose last chain spans the whole file."""
    at = len(ElfFile(tags=[(0x6FFFFEF5, 0)]).content())
    library = ElfFile(tags=[(0x6FFFFEF5, at)]).content()
    table = struct.pack("<IIIIQI", 1, 1, 1, 0, 0, 1)
    whole = library + table + bytes(LARGEST - len(library) - len(table))
    changed = bytearray(whole)
    struct.pack_into("<QQ", changed, 64 + 32, len(whole), len(whole))  # the first segment covers it
    return bytes(changed)


def _huge_hash_table() -> bytes:
    """A hash table with four billion buckets."""
    library = bytearray(WRITTEN)
    at = WRITTEN.index(struct.pack("<II", 1, 6))
    struct.pack_into("<II", library, at, 0xFFFFFFFF, 0xFFFFFFFF)
    return bytes(library) + b"\x01" * (LARGEST - len(library))


def _many_functions() -> bytes:
    """3,000 names with the prefix of the library's functions."""
    return ElfFile(exported=[f"tms_{number:0500}" for number in range(3_000)]).content()


@pytest.mark.parametrize(
    "make",
    [_many_sections, _many_segments, _endless_name, _long_chain, _huge_hash_table, _many_functions],
)
def test_hostile_library_is_classified(make: Callable[[], bytes]) -> None:
    build = classified(make())
    assert build.verdict in ("not-elf", "unknown")
    assert len(repr(build)) < 100_000


def test_largest_accepted_file_is_classified(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(WRITTEN + bytes(LARGEST - len(WRITTEN)))
    (file,) = library_files(path)
    assert classified(file.content).verdict == "unknown"


def test_path_without_a_library_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        library_files(tmp_path / "absent.so")
    with pytest.raises(UsageError, match=r"no torch_memory_saver"):
        library_files(tmp_path)
    with (tmp_path / "huge.so").open("wb") as huge:
        huge.truncate(1 << 40)
    with pytest.raises(UsageError, match="no build of this library is larger"):
        library_files(tmp_path / "huge.so")
    os.mkfifo(tmp_path / "pipe.so")
    with pytest.raises(UsageError, match="not a regular file"):
        library_files(tmp_path / "pipe.so")
    (tmp_path / "loop.so").symlink_to("loop.so")
    with pytest.raises(UsageError, match=r"no such file|cannot be read"):
        library_files(tmp_path / "loop.so")


def _wheel(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as wheel:
        for name, content in members:
            wheel.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK", "not a readable wheel"),
        (_wheel(("torch_memory_saver/__init__.py", b"")), r"no torch_memory_saver"),
        (_wheel(("torch_memory_saver_x.so", bytes(LARGEST + 1))), "no build of this library is larger"),
        (_wheel(*((f"torch_memory_saver_{n}.so", b"") for n in range(40))), "40 libraries"),
        (_wheel(*((f"torch_memory_saver_{n}.so", bytes(LARGEST // 4)) for n in range(5))), "larger"),
    ],
)
def test_invalid_wheel_is_bad_input(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(content)
    with cpu_limit(), pytest.raises(UsageError, match=message):
        library_files(tmp_path / "x.whl")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_wheel_is_classified_or_bad_input(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(_wheel(("torch_memory_saver_x.abi3.so", WRITTEN)))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.whl"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        for file in library_files(path):
            classified(file.content)
    except UsageError:
        pass
