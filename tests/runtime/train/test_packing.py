from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from vime_runtime.batch import RolloutBatch
from vime_runtime.train import packing


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 60))
def test_a_plan_holds_every_sequence_once_and_keeps_to_the_budget(lengths, budget):
    packs = packing.plan(dict(enumerate(lengths)), budget)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    for pack in packs:
        assert len(pack) == 1 or sum(lengths[i] for i in pack) <= budget
        assert [lengths[i] for i in pack] == sorted(lengths[i] for i in pack)


def test_a_pack_predicts_each_response_token_from_the_token_before_it():
    batch = RolloutBatch.empty()
    batch.append([1, 2], [3, 4], [-0.1, -0.2], 1.0, 0)
    batch.append([5, 6, 7], [8], [-0.3], 0.0, 0)
    batch.append([9], [10, 11, 12, 13], [-0.4, -0.5, -0.6, -0.7], 0.0, 0)
    pack = packing.build(batch, [0, 1, 2], [0.5, -1.0, 2.0], torch.device("cpu"))

    assert pack.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]]
    assert pack.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4]]
    assert pack.sequences.runs == ((2, 4), (1, 5))
    assert pack.sequences.cu_seqlens_q.tolist() == [0, 4, 8, 13]
    assert pack.tokens[0, pack.rows].tolist() == [2, 3, 7, 9, 10, 11, 12]
    assert pack.targets.tolist() == [3, 4, 8, 10, 11, 12, 13]
    assert torch.equal(pack.tokens[0, pack.rows + 1], pack.targets)
    assert pack.advantages.tolist() == [0.5, 0.5, -1.0, 2.0, 2.0, 2.0, 2.0]
    assert pack.rollout_logprobs.tolist() == torch.tensor([-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7]).tolist()
