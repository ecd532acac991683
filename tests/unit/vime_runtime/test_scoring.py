"""Score groups while others are sampled, count failures, and evaluate; with real reward processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import Response
from vime_runtime.data.problems import Problem
from vime_runtime.logging.event_log import Callback, EventLog, ScoredResponse
from vime_runtime.rewards.pool import TRAINING_SET, RewardPool
from vime_runtime.scoring import Evaluation, Scorer, sampling_seeds
from vime_runtime.spec.errors import RewardFailed
from vime_runtime.spec.recipe import DataTable, EvaluationTable

from harness.run_config import make_recipe

# The reward of a response is its number, unless it says otherwise.
REWARD = """
import time
def reward(response):
    if response == "hang":
        time.sleep(600)
    return float(response)
"""
PROBLEMS = [Problem([1, index], f"question {index}", "3", index) for index in range(2)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path, 3)
    yield log
    log.close()


@pytest.fixture
def scorer(
    tmp_path: Path, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[float], Scorer]]:
    """Return a function that makes a scorer with a part of failures that it allows."""
    (tmp_path / "user_rewards.py").write_text(REWARD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    table = DataTable(path="d.jsonl", reward="user_rewards:reward", reward_timeout=1.0)
    pool = RewardPool({TRAINING_SET: table, "held-out": table}, tmp_path, tmp_path / "rewards.log")
    yield lambda max_failures: Scorer(pool, max_failures, log)
    pool.close()


def answers(*texts: str) -> list[Response]:
    return [Response([5] * len(text), [-0.5] * len(text), "stop", text) for text in texts]


def warnings(tmp_path: Path) -> list[str]:
    lines = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    return [line["message"] for line in lines if line["kind"] == "warning"]


def test_a_batch_has_every_response_in_the_order_of_the_problems(scorer: Any, tmp_path: Path) -> None:
    row: dict[str, float] = {}
    groups = scorer(0.0).start(PROBLEMS, [(1, answers("3", "4")), (0, answers("1", "22"))])
    batch = scorer(0.0).batch(groups, 7, row)
    assert batch.rewards == [1, 22, 3, 4]
    assert batch.groups == [0, 0, 1, 1]
    assert batch.responses == [[5], [5, 5], [5], [5]]
    assert row == {"reward/timeouts": 0, "reward/errors": 0}
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(event["prompt"], event["reward"]) for event in events if event["kind"] == "sample"] == [
        ("question 0", 1),
        ("question 1", 3),
    ]


def test_a_group_is_scored_while_the_next_ones_are_sampled(scorer: Any) -> None:
    """The second group is sampled only after the first one was scored."""
    scored = threading.Event()

    def sample() -> Iterator[tuple[int, list[Response]]]:
        yield 0, answers("1", "2")
        assert scored.wait(120)
        yield 1, answers("3", "4")

    one = scorer(0.0)
    submit = one._pool.submit

    def watched(*args: Any) -> Any:
        future = submit(*args)
        future.add_done_callback(lambda _: scored.set())
        return future

    one._pool.submit = watched
    assert one.batch(one.start(PROBLEMS, sample()), 1, {}).rewards == [1, 2, 3, 4]


def test_failures_are_worth_zero_counted_and_reported_once(scorer: Any, tmp_path: Path) -> None:
    one, row = scorer(0.75), {}
    for step in (1, 2):
        row = {}
        groups = one.start(PROBLEMS, [(0, answers("1", "bad")), (1, answers("hang", "2"))])
        assert one.batch(groups, step, row).rewards == [1, 0, 0, 2]
        assert row == {"reward/timeouts": 1, "reward/errors": 1}
    (message,) = warnings(tmp_path)
    assert message == (
        "reward: ValueError: could not convert string to float: 'bad', "
        f"{tmp_path}/user_rewards.py:6 in reward; 2 of 4 responses of step 1 are not scored: "
        "their reward is 0"
    )


@pytest.mark.parametrize(("texts", "fails"), [(("1", "1", "1", "x"), False), (("1", "1", "x", "y"), True)])
def test_too_many_failures_end_the_run(
    scorer: Any, tmp_path: Path, texts: tuple[str, ...], fails: bool
) -> None:
    one, row = scorer(0.25), {}
    groups = one.start(PROBLEMS[:1], [(0, answers(*texts))])
    if not fails:
        assert sum(one.batch(groups, 1, row).rewards) == 3
        return
    with pytest.raises(RewardFailed) as error:
        one.batch(groups, 3, row)
    assert error.value.message == (
        "ValueError: could not convert string to float: 'x'; 2 of 4 responses of step 3 are not scored"
    )
    assert error.value.where == f"{tmp_path}/user_rewards.py:6 in reward"
    assert error.value.traceback.endswith("ValueError: could not convert string to float: 'x'")
    assert "data.max_reward_failures" in error.value.hint


class FakeEngine:
    """Answers of an engine, with the requests that it got."""

    def __init__(self, texts: list[str]) -> None:
        self.requests: list[Any] = []
        self._texts = texts

    def generate(self, *request: Any) -> Iterator[tuple[int, list[Response]]]:
        self.requests.append(request)
        for index in range(len(request[0])):
            yield index, answers(*self._texts)


class Answers(Callback):
    """The answers that a callback gets."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, str, float]] = []

    def on_answer(self, name: str, scored: ScoredResponse) -> None:
        self.found.append((name, scored.group, scored.text, scored.reward))


def test_an_evaluation_scores_each_set_and_passes_answers_on(scorer: Any, log: EventLog) -> None:
    callback = Answers()
    log.callbacks.append(callback)
    settings = EvaluationTable(every=2, samples=2, temperature=0.5)
    algorithm = make_recipe().algorithm
    sets = {TRAINING_SET: PROBLEMS[:1], "held-out": PROBLEMS}
    evaluation = Evaluation(sets, settings, algorithm, scorer(0.5), log)
    engine: Any = FakeEngine(["1", "4"])
    row: dict[str, float] = {}
    evaluation.run(engine, 1, row)
    assert row == {}
    evaluation.run(engine, 2, row)
    assert row["evaluation/held-out/score"] == row["evaluation/score"] == 2.5
    assert (row["reward/timeouts"], row["reward/errors"]) == (0, 0)
    assert callback.found[2:] == [
        ("held-out", index, text, float(text)) for index in (0, 1) for text in ("1", "4")
    ]
    prompts, samples, seeds, temperature = engine.requests[1]
    assert (prompts, samples, temperature) == ([[1, 0], [1, 1]], 2, 0.5)
    assert seeds == sampling_seeds(2, algorithm.seed, "evaluation", "held-out")


def test_too_many_failures_end_an_evaluation(scorer: Any, log: EventLog) -> None:
    settings, algorithm = EvaluationTable(every=1), make_recipe().algorithm
    evaluation = Evaluation({"held-out": PROBLEMS}, settings, algorithm, scorer(0.25), log)
    engine: Any = FakeEngine(["x"])
    with pytest.raises(RewardFailed, match="'x'; 2 of 2 responses of step 0 are not scored"):
        evaluation.run(engine, 0, {})


def test_neighboring_seeds_and_steps_share_no_seeds() -> None:
    draws = [set(sampling_seeds(8, seed, "step", step)) for seed in range(4) for step in range(4)]
    assert len(set.union(*draws)) == sum(map(len, draws))
    assert sampling_seeds(3, 1, "step", 2) == sampling_seeds(8, 1, "step", 2)[:3]
