"""The page in a real browser: its curves have a shape, pointing at them works, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import answer, metrics, sample
from vimectl.runs import report

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

CURVES = """[...document.querySelectorAll("figure")].map((figure) => [
    figure.id,
    [...figure.querySelectorAll("path.line, path.area")].map((path) => {
        const box = path.getBoundingClientRect();
        return [box.width, box.height, path.getTotalLength()];
    }),
])"""
CHARTS = ["reward", "logprob", "loss", "grad-norm", "entropy", "length", "time", "memory", "peak"]


def test_every_curve_is_drawn_and_nothing_is_fetched(
    write_run: Callable[..., Path], browse: Callable[..., Any]
) -> None:
    page = report.write(write_run([metrics(step) for step in range(1, 31)]))
    browser = browse(page)
    curves = dict(browser.evaluate(CURVES))
    assert list(curves) == [f"chart-{key}" for key in CHARTS]
    assert {key: len(paths) for key, paths in curves.items()} == {
        **{f"chart-{key}": 1 for key in CHARTS}, "chart-logprob": 2, "chart-time": 6, "chart-memory": 4,
    }  # fmt: skip
    for key, paths in curves.items():
        assert all(width > 250 and length > 250 for width, _, length in paths), key
    assert curves["chart-reward"][0][1] > 20  # it rises: a curve, not a line along the edge
    assert browser.requested() == [page.as_uri()]
    assert browser.complaints() == []


def test_pointing_at_a_curve_shows_its_value_and_the_step(
    write_run: Callable[..., Path], browse: Callable[..., Any]
) -> None:
    browser = browse(report.write(write_run([metrics(step) for step in range(1, 31)])))
    place = "document.querySelector('#chart-reward svg').getBoundingClientRect()"
    left, width, top = (browser.evaluate(f"{place}.{name}") for name in ("left", "width", "top"))
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + width - 12, y=top + 60)
    assert browser.evaluate("document.querySelector('#chart-reward .tip').innerText").split("\n") == [
        "step 30",
        "mean 0.87 (0.47 to 1.27)",
    ]
    shown = (
        "[...document.querySelectorAll('.cursor')].filter((c) => c.getAttribute('visibility') == 'visible')"
    )
    assert browser.evaluate(f"{shown}.length") == len(CHARTS)


def test_answers_are_filtered_by_reward(write_run: Callable[..., Path], browse: Callable[..., Any]) -> None:
    rows = [metrics(step) | {"evaluation/score": step / 2} for step in (1, 2)]
    answers = [
        answer(step, problem, reward=float(problem == 0 or (problem == 1 and step == 2)))
        for step in (1, 2)
        for problem in range(3)
    ]
    browser = browse(report.write(write_run(rows, [], answers)))
    shown = "[...document.querySelectorAll('.answers tbody tr')].map((r) => r.offsetHeight > 0)"
    choose = "document.querySelector('#outcome').value = '{}'; document.querySelector('#outcome')"
    for choice, expected in (
        ("wrong", [False, False, True]),
        ("right", [True, True, False]),
        ("changed", [False, True, False]),
        ("", [True, True, True]),
    ):
        browser.evaluate(f"{choose.format(choice)}.dispatchEvent(new Event('change'))")
        assert browser.evaluate(shown) == expected, choice
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_window(write_run: Callable[..., Path], browse: Callable[..., Any], width: int) -> None:
    events = [sample(1, prompt="x" * 9000, response="word " * 3000)]
    answers = [answer(2, prompt="x" * 9000, response="word " * 3000, name="s" * 300)]
    rows = [metrics(1), metrics(2) | {"evaluation/score": 0.5}]
    page = report.write(write_run(rows, events, answers))
    browser = browse(page)
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True
    )
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_text_of_a_model_is_not_run(write_run: Callable[..., Path], browse: Callable[..., Any]) -> None:
    image = '<img src="http://127.0.0.1:9/x" onerror="broken = 1">'
    hostile = f"</pre></script><script>window.broken = 1</script>{image}"
    events = [sample(1, response=hostile, prompt=hostile, label=hostile)]
    events.append({"kind": "error", "time": 1.8e9, "error": {"message": hostile}})
    events.append({"kind": "restart", "time": 1.8e9, "step": 1, "attempt": 1, "reason": hostile})
    summary = {"ok": False, "reason": hostile, "exit_code": 1}
    summary |= {"where": hostile, "hint": hostile, "excerpt": hostile}
    scores = {"evaluation/score": 0.5, f"evaluation/{hostile.replace('/', '')}/score": 0.5}
    rows = [metrics(1) | {f"{hostile}/seconds": 0.1}, metrics(2) | scores]
    answers = [answer(2, name=hostile, prompt=hostile, response=hostile, label=hostile)]
    page = report.write(write_run(rows, events, answers, summary=summary))
    browser = browse(page)
    assert browser.evaluate("typeof window.broken") == "undefined"
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.evaluate("document.querySelector('.samples:not(.answers) pre').innerText") == hostile
    assert browser.evaluate("document.querySelector('.answers pre').innerText") == hostile
    assert browser.requested() == [page.as_uri()]
    assert browser.complaints() == []
