from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimectl.runs.report import axis

VALUES = st.lists(st.floats(-1e300, 1e300), max_size=20)


@given(VALUES, st.booleans())
def test_linear_axis_includes_every_value(values: list[float], from_zero: bool) -> None:
    found = axis.linear(values, from_zero=from_zero)
    assert found.low < found.high
    assert all(map(math.isfinite, found.ticks))
    assert 2 <= len(found.ticks) <= axis.TICKS + 3
    slack = (found.high - found.low) * 1e-6
    assert all(found.low - slack <= value <= found.high + slack for value in values)
    assert not from_zero or found.low <= 0 <= found.high


@given(VALUES)
def test_logarithmic_axis_includes_every_positive_value(values: list[float]) -> None:
    found = axis.logarithmic(values)
    assert found.low < found.high
    assert all(0 <= found.share(value) <= 1 for value in values)
    assert len(found.ticks) <= axis.TICKS + 3


@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_ticks_of_steps_are_whole_steps(values: list[int]) -> None:
    found = axis.whole_axis(values)
    assert found.ticks
    assert all(tick == round(tick) and found.low <= tick <= found.high for tick in found.ticks)


def test_ticks_are_round() -> None:
    assert axis.linear([0.33, 0.93]).ticks == pytest.approx((0.2, 0.4, 0.6, 0.8, 1.0), rel=1e-12)
    assert axis.bytes_axis([3.1 * 2**30]).ticks == tuple(n * 2**30 for n in range(5))
    assert axis.logarithmic([2e-4, 0.3]).ticks == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1, 1), rel=1e-12)
    assert axis.whole_axis(range(1, 31)).ticks == (1, 10, 20, 30)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.4363, "0.436"), (12.5, "12.5"), (1234.5, "1,234"), (2.3e-5, "2.3e-5"), (-1e9, "-1e9")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert axis.format_number(value) == text
