"""Damaged libraries are read or refused without an exception."""

from __future__ import annotations

import pytest

from harness.memory_saver.fuzz_elf import read_changed_libraries

LONG = [pytest.param(200_000, seed, marks=pytest.mark.exhaustive) for seed in (1, 2, 3)]


@pytest.mark.parametrize(("count", "seed"), [(2_000, 0), *LONG])
def test_no_damaged_library_breaks_the_reader(count: int, seed: int) -> None:
    assert 0 < read_changed_libraries(count, seed) < count
