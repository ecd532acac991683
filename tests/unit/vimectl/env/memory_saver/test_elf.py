"""The ELF reader on a real library, on generated ones, and on damaged ones."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import random
import struct
import sysconfig
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from vime_runtime.spec.errors import UsageError

from harness.cpu_limit import cpu_limit
from harness.memory_saver.elf_file import ElfFile
from vimectl.env.memory_saver.elf import read_elf
from vimectl.env.memory_saver.verify import SaverBuild, classify, verify_path
from vimectl.util.host import Host

_LIBRARIES = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
# The smallest library of this interpreter that needs the C library.
REAL = min((c for p in _LIBRARIES.glob("*.so") if b"libc.so" in (c := p.read_bytes())), key=len)
WRITTEN = ElfFile().content()
LARGEST = 16 * 2**20


def classified(content: bytes) -> SaverBuild:
    """Classify a file for an Ascend stack."""
    with cpu_limit():
        return classify("x.so", content, "ascend", "aarch64", ())


def test_real_library_is_read() -> None:
    machine, needed = read_elf(REAL)
    assert machine == platform.machine()
    assert any(name.startswith("libc.so") for name in needed)


def test_generated_library_is_read() -> None:
    assert read_elf(WRITTEN) == ("aarch64", ("libascendcl.so", "libc.so.6"))
    assert read_elf(ElfFile(machine="riscv64", needed=()).content()) == ("ELF machine 243", ())


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
    contents += [REAL, WRITTEN]
    damaged = (changed(chance.choice(contents), chance) for _ in range(count))
    readable = sum(classified(content).verdict != "not-elf" for content in damaged)
    assert 0 < readable < count


@hypothesis.given(st.binary(max_size=256))
def test_anything_else_is_not_elf(content: bytes) -> None:
    assert classified(b"\x7fELF" + content).verdict == "not-elf"


def test_truncated_library_is_not_elf() -> None:
    assert {classified(WRITTEN[:length]).verdict for length in range(len(WRITTEN))} == {"not-elf"}


def _many_segments() -> bytes:
    """65,535 segments before the dynamic one."""
    hostile = bytearray(WRITTEN)
    struct.pack_into("<Q", hostile, 32, len(hostile))
    struct.pack_into("<H", hostile, 56, 0xFFFF)
    note = struct.pack("<IIQQQQQQ", 4, 4, 0, 0, 0, LARGEST // 2, LARGEST // 2, 4)
    return bytes(hostile) + note * 0xFFFE + WRITTEN[64 + 56 : 64 + 2 * 56]


def _many_libraries() -> bytes:
    """More needed libraries than tags are read."""
    return ElfFile(needed=[f"libx{number:0200}.so" for number in range(10_000)]).content()


def _endless_name() -> bytes:
    """The name of a needed library has no end."""
    library = ElfFile(needed=("libascendcl.so",) * 40).content()
    # The strings start after header and segments; nothing behind them is zero.
    start = 64 + 2 * 56
    at_tags = library.index(struct.pack("<qQ", 1, 1))
    whole = bytearray(library[:start] + b"\x01" * (LARGEST - start - 1024) + library[at_tags:])
    at_tags = len(whole) - (len(library) - at_tags)
    struct.pack_into("<Q", whole, 64 + 56 + 8, at_tags)
    return bytes(whole)


@pytest.mark.parametrize("make", [_many_segments, _many_libraries, _endless_name])
def test_hostile_library_is_not_elf(make: Callable[[], bytes]) -> None:
    build = classified(make())
    assert build.verdict == "not-elf"
    assert len(repr(build)) < 100_000


def given(path: Path) -> list[SaverBuild]:
    """Classify what is at a path, without a stack."""
    with cpu_limit():
        return verify_path(path, Host(), None)


def test_largest_accepted_file_is_classified(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(WRITTEN + bytes(LARGEST - len(WRITTEN)))
    assert [build.size for build in given(path)] == [LARGEST]


def test_path_without_a_library_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"):
        given(tmp_path / "absent.so")
    with pytest.raises(UsageError, match=r"no torch_memory_saver"):
        given(tmp_path)
    with (tmp_path / "huge.so").open("wb") as huge:
        huge.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe.so")
    (tmp_path / "loop.so").symlink_to("loop.so")
    reasons = {"huge.so": "larger than", "pipe.so": "not a file", "loop.so": "cannot be read"}
    for name, reason in reasons.items():
        with pytest.raises(UsageError, match=reason):
            given(tmp_path / name)


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
        (_wheel(("torch_memory_saver_x.so", bytes(2 * LARGEST + 1))), "larger libraries"),
        (_wheel(*((f"torch_memory_saver_{n}.so", b"") for n in range(40))), "more or larger"),
        (_wheel(*((f"torch_memory_saver_{n}.so", bytes(LARGEST // 2)) for n in range(5))), "larger"),
        (_wheel(("torch_memory_saver_x.so", b""), compression=zipfile.ZIP_LZMA), "not compressed like"),
    ],
)
def test_invalid_wheel_is_bad_input(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        given(tmp_path / "x.whl")


def test_member_is_not_unpacked_further_than_it_states(tmp_path: Path) -> None:
    bomb = _wheel(("torch_memory_saver_x.so", bytes(2**28)))
    for at in (bomb.index(struct.pack("<I", 2**28)), bomb.rindex(struct.pack("<I", 2**28))):
        bomb = bomb[:at] + struct.pack("<I", 1000) + bomb[at + 4 :]
    (tmp_path / "x.whl").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(UsageError, match="not a readable wheel"):
        given(tmp_path / "x.whl")
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@hypothesis.given(data=st.data())
def test_damaged_wheel_is_classified_or_bad_input(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(_wheel(("torch_memory_saver_x.abi3.so", WRITTEN)))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.whl"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(UsageError):
        assert given(path)
