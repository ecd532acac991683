"""Reward functions in reward processes: which ones are known, what they get, and what they may return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import Response
from vime_runtime.data import reasoning_gym
from vime_runtime.data.problems import Problem
from vime_runtime.rewards.pool import TRAINING_SET, check_rewards
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable


def rewards(started: Any, *texts: str, label: str = "7") -> list[float]:
    scores = started.score(*texts, label=label)
    assert [score.error for score in scores] == [None] * len(texts)
    return [score.reward for score in scores]


def test_exact_match(start_pool: Any) -> None:
    started = start_pool(reward="exact-match")
    assert rewards(started, "7", " 7\n", "7.0", "") == [1, 1, 0, 0]


def test_exact_match_of_the_last_number_compares_numbers(start_pool: Any) -> None:
    started = start_pool(reward="exact-match", answer="last-number")
    assert rewards(started, "It is 18.", "18.00", "$18", "18 or 3", "none", label="18.0") == [1, 1, 1, 0, 0]


def test_math_verify(start_pool: Any) -> None:
    started = start_pool(reward="math-verify")
    for response, label, reward in [
        ("So the answer is 1/2", "0.5", 1.0),
        (r"$x = \frac{3}{6}$", r"\frac{1}{2}", 1.0),
        (r"Hence \boxed{\sqrt{8}}", r"2\sqrt{2}", 1.0),
        (r"\boxed{x^2+2x+1}", "$(x+1)^2$", 1.0),
        (r"The points are $(1, 2)$", "(1,2)", 1.0),
        ("3 and 4 make 8", "7", 0.0),
        ("I do not know", "7", 0.0),
        ("", "7", 0.0),
    ]:
        assert rewards(started, response, label=label) == [reward], (response, label)
    assert started.log == ""  # the library's warnings are for those who have no other limit


def test_an_expression_that_takes_too_long_costs_only_its_response(start_pool: Any) -> None:
    started = start_pool(reward="math-verify", reward_timeout=1.0)
    first, second, third = started.score("7", "$9999999^{9999999}$", "7")
    assert (first.reward, second.reward, third.reward) == (1, 0, 1)
    assert second.error.kind == "timeout"


def test_a_task_is_scored_by_its_verifier(start_pool: Any) -> None:
    path, settings = "reasoning_gym:countdown", {"size": 3, "seed": 3}
    pool = start_pool(path=path, settings=settings, reward="verifier").pool
    for index in (2, 0):
        entry = reasoning_gym.create(path, settings)[index]
        other_order = " + ".join(map(str, entry["metadata"]["numbers"]))  # misses the target
        texts = [entry["answer"], other_order, "I do not know"]
        problem = Problem([1], entry["question"], entry["answer"], index)
        right, wrong, none = pool.submit(
            TRAINING_SET, problem, [Response([1], [0.0], "stop", text) for text in texts]
        ).result()
        assert right.reward == 1
        assert none.reward < wrong.reward < 1


def test_an_answer_that_a_verifier_cannot_parse_scores_zero(start_pool: Any) -> None:
    path, settings = "reasoning_gym:prime_factorization", {"size": 1}
    task = reasoning_gym.create(path, settings)
    with pytest.raises(ValueError, match="invalid literal"):
        task.score_answer("what?", task[0])
    assert rewards(start_pool(path=path, settings=settings, reward="verifier"), "what?") == [0]


# Definitions of a function ``reward``, and what it returns for "is 7" with the answer "7".
FORMS = [
    ("def reward(answer, label): return answer == label", 1.0),
    ("def reward(a, b): return (a, b) == ('7', '7')", 1.0),
    ("def reward(a, b, *, response): return len(response)", 4.0),
    ("def reward(answer, label, /): return 2", 2.0),
    ("def reward(*both): return len(both)", 2.0),
    ("def reward(response): return len(response)", 4.0),
    ("def reward(answer, label, tolerance=0.5): return tolerance", 0.5),
    ("def reward(answer, row): return row['level']", 3.0),
    ("def reward(prompt, finish_reason, tokens): return 5 * (prompt, finish_reason, tokens) == ()", 0.0),
    ("def reward(prompt, tokens): return len(prompt) + len(tokens)", 9.0),
    ("def reward(finish_reason, **rest): return finish_reason == 'stop' and len(rest)", 6.0),
    ("async def reward(answer, label): return answer == label", 1.0),
    ("class R:\n  async def __call__(self, answer): return 4\nreward = R()", 4.0),
    ("class R:\n  def score(self, answer, label): return 6\nreward = R().score", 6.0),
    ("async def f(): return 3\ndef reward(answer): return f()", 3.0),
    ("def reward(answers, labels): return [a == l for a, l in zip(answers, labels)]", 1.0),
    ("async def reward(responses, rows): return (len(r) for r in responses)", 4.0),
    ("import functools\nreward = functools.partial(lambda n, answer, label: n, 8)", 8.0),
    ("import numpy\ndef reward(answer): return numpy.float32(0.5)", 0.5),
    ("import numpy\ndef reward(answers): return numpy.ones(len(answers))", 1.0),
    ("from fractions import Fraction\ndef reward(answer): return Fraction(1, 4)", 0.25),
]


def test_a_function_gets_what_it_names(start_pool: Any) -> None:
    names = [f"reward_{number}" for number in range(len(FORMS))]
    code = "\n".join(f"{form}\n{name} = reward" for name, (form, _) in zip(names, FORMS, strict=True))
    started = start_pool(code, names, answer="last-number")
    for name, (form, expected) in zip(names, FORMS, strict=True):
        (score,) = started.score("is 7", row={"level": 3}, name=name)
        assert (score.error, score.reward) == (None, expected), form


def test_only_a_function_of_the_answer_needs_one(start_pool: Any) -> None:
    started = start_pool("def reward(answer): return 1", answer="last-number")
    assert rewards(started, "none", "2", "none") == [0, 1, 0]
    started = start_pool("def reward(response): return 1", answer="last-number")
    assert rewards(started, "none", "2") == [1, 1]
    started = start_pool("def reward(answers): return [float(a) for a in answers]", answer="last-number")
    assert rewards(started, "none", "2", "3") == [0, 2, 3]
    assert rewards(started, "none") == [0]


def test_a_function_of_a_group_gets_all_of_it_in_one_call(start_pool: Any) -> None:
    started = start_pool("def reward(responses): return [len(responses)] * len(responses)")
    assert rewards(started, *"abcde") == [5] * 5


def test_coroutines_of_a_group_run_concurrently(start_pool: Any) -> None:
    """Each waits until all have started."""
    started = start_pool(
        "import asyncio\n"
        "started, all_started = 0, asyncio.Event()\n"
        "async def reward(answer):\n"
        "    global started\n"
        "    started += 1\n"
        "    if started == 4: all_started.set()\n"
        "    await all_started.wait()\n"
        "    return 1\n",
    )
    assert rewards(started, *"abcd") == [1] * 4


def test_a_task_gives_its_entry_as_row(start_pool: Any) -> None:
    settings = {"size": 4}
    pool = start_pool(
        "def reward(row, answer): return len(row['question'])",
        path="reasoning_gym:basic_arithmetic",
        settings=settings,
    ).pool
    entry = reasoning_gym.create("reasoning_gym:basic_arithmetic", settings)[3]
    problem = Problem([1], entry["question"], entry["answer"], 3)
    (score,) = pool.submit(TRAINING_SET, problem, [Response([1], [0.0], "stop", "7")]).result()
    assert score.reward == len(entry["question"])


# Results that are no reward, and how the error shows them.
RESULTS = {
    "float('nan')": "nan (float)",
    "-float('inf')": "-inf (float)",
    "1e7": "10000000.0 (float)",
    "10**400": "(int)",
    "None": "None (NoneType)",
    "'1'": "'1' (str)",
    "[1]": "[1] (list)",
    "{}": "{} (dict)",
}


def test_a_result_must_be_a_finite_number(start_pool: Any) -> None:
    started = start_pool(f"def reward(answer):\n    return [{', '.join(RESULTS)}][int(answer)]\n")
    scores = started.score(*map(str, range(len(RESULTS))))
    for score, shown in zip(scores, RESULTS.values(), strict=True):
        assert (score.reward, score.error.kind) == (0, "exception")
        assert score.error.message.startswith("ValueError: user_rewards:reward returned ")
        assert score.error.message.endswith(f"{shown}, expected a number from -1e+06 to 1e+06")
        assert score.error.where.endswith("user_rewards.py:1 in reward")


def test_a_batch_must_have_a_result_for_each_response(start_pool: Any) -> None:
    for score in start_pool("def reward(answers): return 1.0").score("7", "8"):
        assert score.error.message.endswith("returned 1.0 (float), expected a list of 2 numbers")
    for score in start_pool("def reward(answers): return [1.0]").score("7", "8"):
        assert score.error.message.endswith("returned [1.0] (list), expected a list of 2 numbers")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"reward": "exact"}, "unknown reward 'exact'"),
        ({"reward": "no_such_package:f"}, "cannot be imported: ModuleNotFoundError: No module named"),
        ({"reward": "user_rewards:nothing"}, "cannot be imported: AttributeError: .*'nothing'"),
        ({"reward": "user_rewards:table"}, "is a dict, not a function"),
        ({"reward": "user_rewards:one"}, "cannot be called with .*missing a required argument|too many"),
        ({"reward": "user_rewards:mixed"}, "mixes arguments of one response and of a group"),
        ({"reward": "verifier"}, "the data is a file and has none"),
        ({"reward": "verifier", "path": "reasoning_gym:sudokku"}, "no task 'sudokku'"),
    ],
)
def test_an_unusable_reward_is_an_error(
    user_module: Callable[[str], Path], data: dict[str, str], message: str
) -> None:
    user_module("table = {}\ndef one(text): return 1\ndef mixed(answers, labels, prompt): return 1\n")
    with pytest.raises(UsageError, match=message) as error:
        check_rewards({TRAINING_SET: DataTable.model_validate({"path": "d.jsonl", **data})})
    assert error.value.hint


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("\n\nraise RuntimeError('no luck')\n", "RuntimeError: no luck"),
        ("\n\nreward = nothing\n", "NameError: name 'nothing' is not defined"),
        ("\n\ndef reward(:\n", "SyntaxError: invalid syntax"),
        ("\n\nimport sys; sys.exit(2)\n", "SystemExit: 2"),
        ("\n\nimport no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_an_error_while_the_module_is_imported_is_explained(
    user_module: Callable[[str], Path], code: str, message: str
) -> None:
    path = user_module(code)
    table = {"path": "d.jsonl", "reward": "user_rewards:reward"}
    with pytest.raises(UsageError) as error:
        check_rewards({TRAINING_SET: DataTable.model_validate(table)})
    assert message in error.value.message
    assert f"{path}:3" in error.value.message


def test_a_process_that_ends_while_it_imports_is_explained(user_module: Callable[[str], Path]) -> None:
    user_module("import os; os._exit(4)")
    table = {"path": "d.jsonl", "reward": "user_rewards:reward"}
    with pytest.raises(UsageError, match="did not start: the reward process exited with code 4"):
        check_rewards({TRAINING_SET: DataTable.model_validate(table)})


def test_good_rewards_pass_the_check(user_module: Callable[[str], Path]) -> None:
    user_module("def reward(answer, label): return 1")
    tables = [
        {"path": "d.jsonl", "reward": "user_rewards:reward"},
        {"path": "reasoning_gym:gcd", "reward": "verifier"},
    ]
    check_rewards({str(i): DataTable.model_validate(table) for i, table in enumerate(tables)})
