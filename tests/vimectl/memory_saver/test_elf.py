"""The reader against a real library of this machine and every kind of damage to it."""

from __future__ import annotations

import sysconfig
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vimectl.errors import BadInput
from vimectl.memory_saver.elf import read_library
from vimectl.memory_saver.find import File, libraries
from vimectl.memory_saver.judge import judge


@pytest.fixture(scope="module")
def real() -> bytes:
    """The smallest of this interpreter's own libraries that needs the C library."""
    folder = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    contents = sorted((path.read_bytes() for path in folder.glob("*.so")), key=len)
    return next(content for content in contents if b"libc.so" in content)


def test_real_library_is_read(real: bytes) -> None:
    library = read_library(real)
    assert library.machine in ("x86_64", "aarch64")
    assert any(name.startswith("libc.so") for name in library.needed)
    assert any(name.startswith("PyInit_") for name in library.exported)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_library_never_crashes_the_reader(real: bytes, data: st.DataObject) -> None:
    damaged = bytearray(real[: data.draw(st.integers(0, len(real)))])
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255)), max_size=8)
    ):
        if position < len(damaged):
            damaged[position] = value
    judge(File("damaged.so", bytes(damaged)), "ascend", "x86_64")


@given(st.binary(max_size=256))
def test_anything_else_is_not_elf(content: bytes) -> None:
    assert judge(File("x.so", b"\x7fELF" + content), None, None).verdict == "not-elf"


def test_library_of_many_claimed_sections_is_judged_at_once(real: bytes) -> None:
    hostile = bytearray(real + bytes(8 * 2**20))
    hostile[60:62] = b"\xff\xff"  # e_shnum
    hostile[56:58] = b"\xff\xff"  # e_phnum
    began = time.monotonic()
    judge(File("x.so", bytes(hostile)), None, None)
    assert time.monotonic() - began < 1


def test_what_is_no_library_at_all_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        libraries(tmp_path / "absent.so")
    with pytest.raises(BadInput, match=r"no torch_memory_saver"):
        libraries(tmp_path)
    (tmp_path / "broken.whl").write_bytes(b"PK")
    with pytest.raises(BadInput, match="not a readable wheel"):
        libraries(tmp_path / "broken.whl")
    with (tmp_path / "huge.so").open("wb") as huge:
        huge.truncate(1 << 40)
    with pytest.raises(BadInput, match="no build of this library is larger"):
        libraries(tmp_path / "huge.so")
    with zipfile.ZipFile(tmp_path / "pure.whl", "w") as wheel:
        wheel.writestr("torch_memory_saver/__init__.py", "")
    with pytest.raises(BadInput, match=r"no torch_memory_saver"):
        libraries(tmp_path / "pure.whl")
