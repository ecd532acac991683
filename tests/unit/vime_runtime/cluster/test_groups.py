from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from vime_runtime.cluster.groups import EngineGroup

from harness.run_config import make_run_config

CONFIG = make_run_config({
    "recipe": {"cluster": {"nodes": 2, "devices_per_node": 2}, "rollout": {"tensor_parallel": 1}}
})  # fmt: skip


class Engines:
    """Stands where the actors would be started: engines that answer with their number and the prompt."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[list[int]], int]] = []

    def start(self, kind: type, role: str, seat: Any, index: int) -> Any:
        number = seat.node * 2 + seat.devices[0]

        def generate(prompts: list[list[int]], samples: int, seed: int, greedy: bool) -> list[list[Any]]:
            self.asked.append((number, prompts, seed))
            return [[(number, prompt)] * samples for prompt in prompts]

        return SimpleNamespace(
            generate=SimpleNamespace(remote=generate), load=SimpleNamespace(remote=lambda: None)
        )


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_prompts_are_dealt_in_turn_and_answers_come_in_order(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(ray, "get", lambda answers: answers)
    engines = Engines()
    prompts = [[n, n] for n in range(count)]
    answers = EngineGroup(CONFIG, engines).generate(prompts, samples=2, seed=7)
    assert answers == [[(n % 4, [n, n])] * 2 for n in range(count)]
    assert all(prompts for _, prompts, _ in engines.asked)  # vLLM is not asked for nothing
    assert len({seed for _, _, seed in engines.asked}) == len(engines.asked)
