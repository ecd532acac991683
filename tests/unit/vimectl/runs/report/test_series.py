from __future__ import annotations

from vimectl.runs.report.series import Chart, Line, thinned


def chart(*columns: list[float | None], stacked: bool = False) -> Chart:
    lines = tuple(Line(f"line {n}", tuple(values), 1) for n, values in enumerate(columns))
    steps = tuple(range(1, len(columns[0]) + 1))
    return Chart("key", "Title", "", "number", steps, lines, stacked=stacked)


def test_few_steps_stay_as_they_are() -> None:
    few = chart([1.0, None, 3.0])
    assert thinned(few, stretches=10) is few
    assert few.holes == 1


def test_many_steps_keep_ends_peaks_and_holes() -> None:
    values: list[float | None] = [0.0] * 2000
    values[500], values[1500] = 9.0, -9.0
    values[1000:1100] = [None] * 100
    few = thinned(chart(values, [float(n) for n in range(2000)]), stretches=50)
    assert len(few.steps) <= 50 * 4 + 2
    assert (few.steps[0], few.steps[-1]) == (1, 2000)
    assert few.lines[0].values[few.steps.index(501)] == 9.0
    assert few.lines[0].values[few.steps.index(1501)] == -9.0
    assert None in few.lines[0].values
    assert few.lines[1].values == tuple(step - 1 for step in few.steps)
    assert few.lines[1].smooth
    assert few.lines[1].smooth[few.steps.index(1501)] == 1500  # the mean around it


def test_a_layer_that_some_steps_do_not_have_is_no_hole() -> None:
    assert chart([1.0, 2.0], [None, 1.0], stacked=True).holes == 0
    assert chart([1.0, 2.0], [None, 1.0]).holes == 1
