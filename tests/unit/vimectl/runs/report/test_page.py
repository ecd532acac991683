from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import answer, metrics, sample
from vimectl.runs import report

NAN = float("nan")


class Balance(HTMLParser):
    """Fail on a tag that is not closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(run_dir: Path) -> str:
    text = report.write(run_dir).read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert not any(word in drawing for drawing in drawings for word in ("nan", "inf", "None"))
    return text


def charts_in(text: str) -> list[str]:
    return re.findall(r'<figure id="chart-([^"]+)"', text)


def test_page_of_a_finished_run(write_run: Callable[..., Path]) -> None:
    environment = {
        role: {"A": {"value": "1", "reason": "why not"}, "HF_TOKEN": {"value": "hf_x", "reason": "-"}}
        for role in ("driver", "train")
    }
    launcher = {"pid": 1, "time": 1.79e9, "host": "box"}
    rows = [metrics(step) | ({"evaluation/score": 0.5} if step == 4 else {}) for step in range(1, 10)]
    text = page_of(write_run(rows, environment=environment, launcher=launcher))
    assert '<span class="state finished">finished</span>' in text
    assert ">9 of 9<" in text
    assert "started <b>2026-09-21 14:13:20 UTC</b>" in text
    assert "evaluation" in charts_in(text)
    assert re.findall(r"<h3>Step (\d+)", text) == ["1", "5", "9"]
    assert re.findall(r'<td class="mono">A</td><td class="mono">1</td><td>(.*?)</td>', text) == [
        "driver, train"
    ]
    assert "sesame" not in text
    assert "hf_x" not in text


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], 0),
        ([metrics(1)], 9),
        ([metrics(7) | {"train/loss": None, "reward/mean": "high", "step/seconds": True}], 7),
        ([dict.fromkeys(metrics(1), NAN) | {"step": n} for n in (1, 2)], 0),
        (
            [
                metrics(n) | {"train/loss": (NAN, 1e300, -1e300, float("inf"), 10**400)[n % 5]}
                for n in range(9)
            ],
            9,
        ),
        ([metrics(n) | {"logprob/abs_diff_mean": 0, "logprob/abs_diff_max": 0.0} for n in range(3)], 9),
        (["not json\n", "[1]\n", '{"no": "step"}\n', json.dumps(metrics(3)) + "\n", '{"step": 4, "half'], 9),
        ([{"step": 1}], 0),
    ],
    ids=["no step", "one step", "holes", "only NaN", "huge", "equal log-probs", "damaged", "bare"],
)
def test_damaged_data_do_not_prevent_the_page(
    write_run: Callable[..., Path], rows: list[Any], expected: int
) -> None:
    text = page_of(write_run(rows, events=[]))
    assert len(charts_in(text)) == expected
    assert ("there is nothing to draw" in text) == (expected == 0)


def test_page_of_two_thousand_steps_is_small(write_run: Callable[..., Path]) -> None:
    rows = [metrics(step) for step in range(1, 2001)]
    rows[777]["train/loss"] = 55.0
    text = page_of(write_run(rows, events=[]))
    assert len(text) < 1_500_000
    assert 'to 55)"' in text  # peaks are kept


def test_steps_without_a_finite_value_are_counted(write_run: Callable[..., Path]) -> None:
    text = page_of(write_run([metrics(1), metrics(2) | {"train/loss": NAN}, metrics(3)]))
    assert "1 of 3 steps without a finite value" in text


def test_events_are_shown_and_unknown_kinds_are_ignored(write_run: Callable[..., Path]) -> None:
    events = [
        {"kind": "process", "role": "engine", "rank": 0, "pid": 5},
        {"kind": "later-invention", "step": [1]},
        {"kind": "checkpoint", "time": 1.8e9, "step": 2, "path": "checkpoints/step-000002"},
        {"kind": "evaluation", "time": 1.8e9, "step": 2, "score": 0.25, "best": True},
        {"kind": "restart", "time": 1.8e9, "attempt": 1, "step": 2, "reason": "trainer 1 died"},
        "{\n",
    ]
    text = page_of(write_run([metrics(step) for step in range(1, 4)], events))
    assert "restart 1 after step 2: trainer 1 died" in text
    assert "best evaluation so far: 0.25" in text
    assert "1 saved" in text
    assert text.count('class="restart"') == text.count('class="checkpoint"') == 10


def test_evaluation_answers_are_shown(write_run: Callable[..., Path]) -> None:
    rows = [metrics(step) | ({"evaluation/score": 0.5} if step == 2 else {}) for step in (1, 2)]
    events = [{"kind": "evaluation", "step": 0, "score": 0.25, "best": False}]
    answers = [answer(0, reward=0.0, finish_reason="length"), answer(2), answer(2, name="<hard>")]
    text = page_of(write_run(rows, events, answers))
    assert (
        re.findall(r"<th>([^<]*)<small>(score [\d.]+)", text)
        == [
            ("before training ", "score 0.25"),
            ("step 2 ", "score 0.5"),
        ]
        * 2
    )
    assert "reward 0, cut at the token limit" in text
    assert "&lt;hard&gt;" in text
    assert '<tr class="right changed">' in text


def test_failure_and_warnings_are_explained(write_run: Callable[..., Path]) -> None:
    summary = {"ok": False, "reason": "KeyError: 'x'", "exit_code": 1, "seconds": 3}
    summary |= {"where": "rewards.py:7 in score", "hint": "correct it", "excerpt": "Traceback\n  <x>"}
    events = [{"kind": "warning", "time": 1.8e9, "message": "7 of 90 prompts are skipped"}]
    text = page_of(write_run([metrics(1)], events, summary=summary))
    assert "<td>warning</td><td>7 of 90 prompts are skipped</td>" in text
    for part in ("rewards.py:7 in score", "correct it", "Traceback\n  &lt;x&gt;"):
        assert f'<pre dir="auto">{part}</pre>' in text


def test_invisible_characters_are_shown_as_symbols(write_run: Callable[..., Path]) -> None:
    odd = "a\x00b\x1b[31mc\u202ed\ud800e\x85"
    text = page_of(write_run([metrics(1)], [sample(1, response=odd), sample(1, response="y" * 10_000)]))
    assert "a␀b␛[31mc⟨U+202E⟩d⟨U+D800⟩e⟨U+0085⟩" in text
    assert "y… 6,000 more characters" in text


def test_failed_page_leaves_the_earlier_one(
    write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = write_run([metrics(1)])
    (run_dir / "report.html").write_text("as before")
    monkeypatch.setattr("vimectl.runs.report.page.render", lambda data: 1 / 0)
    report.write_at_end(run_dir)
    assert (run_dir / "report.html").read_text() == "as before"
    assert "ZeroDivisionError" in (run_dir / "logs" / "report.log").read_text()
    assert not list(run_dir.glob(".report*"))
