from __future__ import annotations

import numpy
import pytest
from vime_runtime.batch import RolloutBatch


def batch_of(lengths: list[int], rewards: list[float], truncated: list[bool] | None = None) -> RolloutBatch:
    """Groups of two."""
    batch = RolloutBatch()
    for i, (length, reward) in enumerate(zip(lengths, rewards, strict=True)):
        batch.append([0], [1] * length, [-1.0] * length, reward, i // 2, bool(truncated and truncated[i]))
    return batch


def test_metrics_describe_rewards_groups_and_lengths():
    batch = batch_of([3, 1, 8, 4], [1.0, 1.0, 0.0, 0.5], [False, False, True, False])
    assert batch.metrics() == {
        "reward/mean": 0.625,
        "reward/std": pytest.approx(numpy.std([1.0, 1.0, 0.0, 0.5])),
        "reward/min": 0.0,
        "reward/max": 1.0,
        "groups/uniform": 0.5,
        "response/length": 4.0,
        "response/length_p10": pytest.approx(numpy.percentile([3, 1, 8, 4], 10)),
        "response/length_p50": 3.5,
        "response/length_p90": pytest.approx(numpy.percentile([3, 1, 8, 4], 90)),
        "response/truncated": 0.25,
        "rollout/tokens": 16,
    }


def test_a_group_is_uniform_if_all_of_its_rewards_are_equal():
    assert batch_of([1] * 6, [0.0, 0.0, 0.1, 0.2, 1.0, 1.0]).uniform_groups() == {0, 2}


def test_members_of_groups_may_be_in_any_order():
    batch = RolloutBatch(groups=[1, 0, 1])
    assert batch.members() == {1: [0, 2], 0: [1]}


def test_each_token_needs_a_log_probability():
    with pytest.raises(ValueError, match="2 response tokens but 1 log-prob"):
        RolloutBatch().append([0], [1, 2], [-1.0], 0.0, 0)
