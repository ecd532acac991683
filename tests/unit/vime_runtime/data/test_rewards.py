from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.data import reasoning_gym, rewards
from vime_runtime.data.problems import Problem
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable


def get(name: str, answer: str = "whole", path: str = "d.jsonl", **settings: Any) -> rewards.Reward:
    table = {"path": path, "settings": settings, "answer": answer, "reward": name}
    return rewards.get(DataTable.model_validate(table))


def problem(label: str) -> Problem:
    return Problem([1], "question", label)


@pytest.mark.parametrize(
    ("response", "label", "reward"),
    [("42", "42", 1.0), (" 42\n", "42", 1.0), ("42.", "42", 0.0), ("", "42", 0.0), ("A b", "A b", 1.0)],
)
def test_exact_match(response: str, label: str, reward: float) -> None:
    assert get("exact-match")(response, problem(label)) == reward


@pytest.mark.parametrize(
    ("response", "label", "reward"),
    [
        ("So the answer is 1/2", "0.5", 1.0),
        (r"$x = \frac{3}{6}$", r"\frac{1}{2}", 1.0),
        (r"Hence \boxed{\sqrt{8}}", r"2\sqrt{2}", 1.0),
        (r"\boxed{x^2+2x+1}", "$(x+1)^2$", 1.0),
        (r"The points are $(1, 2)$", "(1,2)", 1.0),
        ("3 and 4 make 8", "7", 0.0),
        ("I do not know", "7", 0.0),
        ("", "7", 0.0),
    ],
)
def test_math_verify(response: str, label: str, reward: float) -> None:
    assert get("math-verify")(response, problem(label)) == reward


def test_math_verify_gives_up_after_a_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "MATH_VERIFY_SECONDS", 0.2)
    score = get("math-verify")
    assert score("$9999999^{9999999}$", problem("7")) == 0.0
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert score("7", problem("7")) == 1.0


def test_math_verify_does_not_count_elapsed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms: list[int] = []
    monkeypatch.setattr(signal, "alarm", alarms.append)
    assert get("math-verify")("7", problem("7")) == 1.0
    assert alarms
    assert all(seconds == 0 or seconds > 86_400 for seconds in alarms)


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write modules with a user's reward functions that are importable during the test."""
    (tmp_path / "user_rewards.py").write_text(
        "def length(response, label):\n    return len(response) / len(label)\n"
        "def unsure(response, label):\n    return float('nan')\n"
        "def one_argument(response):\n    return 1.0\n"
        "table = {}\n"
    )
    (tmp_path / "broken_rewards.py").write_text("raise RuntimeError('no luck')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "user_rewards"
    for name in ("user_rewards", "broken_rewards"):
        sys.modules.pop(name, None)


def test_a_user_function(user_module: str) -> None:
    assert get(f"{user_module}:length")("ab", problem("abcd")) == 0.5


def test_a_user_function_must_return_a_finite_number(user_module: str) -> None:
    with pytest.raises(ValueError, match="returned nan"):
        get(f"{user_module}:unsure")("a", problem("b"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exact", "unknown reward 'exact'"),
        ("no_such_package:f", "cannot be imported: ModuleNotFoundError"),
        ("broken_rewards:f", "cannot be imported: RuntimeError: no luck"),
        ("user_rewards:nothing", "cannot be imported: AttributeError: .*'nothing'"),
        ("user_rewards:table", "cannot be called with .*not a callable"),
        ("user_rewards:one_argument", "cannot be called with"),
    ],
)
def test_an_unusable_reward_is_an_error(user_module: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        get(name)
    assert error.value.hint


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("4 + 5 = 9", "9"),
        ("It is 1,234.5.", "1234.5"),
        ("that makes -3", "-3"),
        ("5-3", "3"),
        ("(2)-1", "1"),
        ("9, I think", "9"),
        ("nine", None),
        ("", None),
    ],
)
def test_the_last_number(response: str, answer: str | None) -> None:
    assert rewards.last_number(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>3</think>\n<answer> 4\n5 </answer>.", "4\n5"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<answer>1", None),
    ],
)
def test_the_tagged_answer(response: str, answer: str | None) -> None:
    assert rewards.tagged(response) == answer


def test_only_the_answer_is_scored_and_no_answer_scores_zero() -> None:
    reward = get("exact-match", answer="last-number")
    scores = [reward(text, problem("9")) for text in ("4 + 5 = 9.", "9 it is", "9 or 8", "nine")]
    assert scores == [1, 1, 0, 0]
    assert get("exact-match", answer="last-number")("", problem("")) == 0


def test_a_task_is_scored_by_its_verifier() -> None:
    path, settings = "reasoning_gym:countdown", {"size": 2, "seed": 3}
    reward = get("verifier", path=path, **settings)
    entry = reasoning_gym.create(path, settings)[0]
    asked = Problem([1], entry["question"], entry["answer"], entry)
    numbers = entry["metadata"]["numbers"]
    other_order = " + ".join(map(str, numbers))  # uses every number, and misses the target
    assert reward(entry["answer"], asked) == 1
    assert 0 < reward(other_order, asked) < 1
    assert reward("I do not know", asked) < reward(other_order, asked)


def test_an_answer_that_a_verifier_cannot_parse_scores_zero() -> None:
    path, settings = "reasoning_gym:prime_factorization", {"size": 1}
    entry = reasoning_gym.create(path, settings)[0]
    with pytest.raises(ValueError, match="invalid literal"):
        reasoning_gym.create(path, settings).score_answer("what?", entry)
    assert get("verifier", path=path, **settings)("what?", Problem([1], "", "", entry)) == 0


def test_a_verifier_refuses_a_problem_of_other_data() -> None:
    with pytest.raises(ValueError, match="cannot score a problem of other data"):
        get("verifier", path="reasoning_gym:gcd", size=1)("4", problem("4"))


def test_a_file_has_no_verifier() -> None:
    with pytest.raises(UsageError, match="the data is a file and has none"):
        get("verifier")
