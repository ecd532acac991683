"""Start pools with reward functions that a test writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import Response
from vime_runtime.data.problems import Problem
from vime_runtime.rewards.pool import TRAINING_SET, RewardPool
from vime_runtime.rewards.score import Score
from vime_runtime.spec.recipe import DataTable


def response(text: str, tokens: int = 1) -> Response:
    return Response([1] * tokens, [-0.5] * tokens, "stop", text)


@dataclass
class StartedPool:
    """A pool, and where its processes write."""

    pool: RewardPool
    folder: Path

    @property
    def log(self) -> str:
        path = self.folder / "rewards.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def score(
        self, *texts: str, label: str = "7", row: dict[str, Any] | None = None, name: str = TRAINING_SET
    ) -> list[Score]:
        problem = Problem([1], "question", label, row=row)
        return self.pool.submit(name, problem, [response(text) for text in texts]).result()


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write ``user_rewards.py``, a module that reward processes can import."""

    def write(code: str) -> Path:
        path = tmp_path / "modules" / "user_rewards.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
        inherited = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", f"{path.parent}{os.pathsep * bool(inherited)}{inherited}")
        return path

    return write


@pytest.fixture
def start_pool(tmp_path: Path, user_module: Callable[[str], Path]) -> Iterator[Callable[..., StartedPool]]:
    """Return a function that starts a pool; keyword arguments are keys of ``[data]``.

    ``code`` is the user's module, whose function ``reward`` scores unless there is another reward. Every name
    in ``functions`` is another set, which that function of the module scores.
    """
    started: list[RewardPool] = []

    def start(code: str = "", functions: Iterable[str] = (), **data: Any) -> StartedPool:
        if code:
            user_module(code)
        table = {"path": "d.jsonl", "reward": "user_rewards:reward", "reward_processes": 2, **data}
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        sets = {TRAINING_SET: DataTable.model_validate(table)}
        for name in functions:
            sets[name] = sets[TRAINING_SET].model_copy(update={"reward": f"user_rewards:{name}"})
        started.append(RewardPool(sets, scratch, tmp_path / "rewards.log", {"FROM_THE_RECIPE": "yes"}))
        return StartedPool(started[-1], tmp_path)

    yield start
    for pool in started:
        pool.close()
    scratch = tmp_path / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())
