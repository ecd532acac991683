from __future__ import annotations

from collections.abc import Iterator
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
    """Starts fake engines that answer with their number, the prompt and its seed, the last prompt first."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[list[int]], list[int]]] = []

    def start(self, kind: type, role: str, assignment: Any, index: int) -> Any:
        number = assignment.node * 2 + assignment.devices[0]

        def generate(
            prompts: list[list[int]], samples: int, seeds: list[int], temperature: float | None
        ) -> Iterator[tuple[int, list[Any]]]:
            assert temperature == 0.5
            self.calls.append((number, prompts, seeds))
            answers = [
                (i, [(number, prompt, seed)] * samples)
                for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
            ]
            return reversed(answers)

        return SimpleNamespace(generate=SimpleNamespace(remote=generate))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_each_prompt_is_sampled_once_with_its_seed_and_has_its_index(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    # The last of the engines is always the first that has something.
    monkeypatch.setattr(ray, "wait", lambda streams, num_returns: (streams[-1:], streams[:-1]))
    placement = FakePlacement()
    prompts, seeds = [[n, n] for n in range(count)], [100 + n for n in range(count)]
    answers = list(EngineGroup(CONFIG, placement).generate(prompts, 2, seeds, 0.5))
    assert sorted(answers) == [(n, [(n % 4, [n, n], 100 + n)] * 2) for n in range(count)]
    assert all(prompts for _, prompts, _ in placement.calls)  # no engine gets an empty request
    assert len(placement.calls) == min(count, 4)
