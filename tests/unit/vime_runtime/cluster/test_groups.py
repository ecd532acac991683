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


class FakePlacement:
    """Starts fake engines that answer with their number and the prompt."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[list[int]], int]] = []

    def start(self, kind: type, role: str, assignment: Any, index: int) -> Any:
        number = assignment.node * 2 + assignment.devices[0]

        def call(
            method: str, prompts: list[list[int]], samples: int, seed: int, greedy: bool
        ) -> list[list[Any]]:
            assert method == "generate"
            self.calls.append((number, prompts, seed))
            return [[(number, prompt)] * samples for prompt in prompts]

        return SimpleNamespace(call=SimpleNamespace(remote=call))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_prompts_are_distributed_and_responses_are_in_order(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(ray, "get", lambda answers: answers)
    placement = FakePlacement()
    prompts = [[n, n] for n in range(count)]
    answers = EngineGroup(CONFIG, placement).generate(prompts, samples=2, seed=7)
    assert answers == [[(n % 4, [n, n])] * 2 for n in range(count)]
    assert all(prompts for _, prompts, _ in placement.calls)  # no engine gets an empty request
    assert len({seed for _, _, seed in placement.calls}) == len(placement.calls)
