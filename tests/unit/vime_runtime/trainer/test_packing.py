from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from vime_runtime.batch import RolloutBatch
from vime_runtime.trainer import packing

# Prompt length and response lengths of each group.
SHAPES = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(1, 20), min_size=1, max_size=8)), max_size=12
)


def sampled(shapes) -> tuple[RolloutBatch, list[packing.Group]]:
    batch = RolloutBatch.empty()
    groups = []
    for number, (prompt, responses) in enumerate(shapes):
        groups.append(list(range(len(batch), len(batch) + len(responses))))
        for length in responses:
            batch.append([number] * prompt, [number] * length, [0.0] * length, 0.0, number)
    return batch, groups


def tokens_in_a_row(batch: RolloutBatch, pieces: list[packing.Group]) -> int:
    return sum(
        len(batch.prompts[piece[0]]) + sum(len(batch.responses[i]) - 1 for i in piece) for piece in pieces
    )


@given(SHAPES, st.integers(1, 60))
def test_a_plan_holds_every_response_once_and_keeps_to_the_budget(shapes, budget):
    batch, groups = sampled(shapes)
    packs = packing.plan(batch, groups, budget)
    assert sorted(i for pack in packs for piece in pack for i in piece) == list(range(len(batch)))
    for pack in packs:
        alone = len(pack) == len(pack[0]) == 1
        assert alone or tokens_in_a_row(batch, pack) <= budget
        prompts = [len(batch.prompts[piece[0]]) for piece in pack]
        assert prompts == sorted(prompts)
        assert all(batch.groups[i] == batch.groups[piece[0]] for piece in pack for i in piece)


@given(SHAPES, st.integers(1, 5))
def test_every_response_is_dealt_to_one_rank_and_whole_groups_go_round(shapes, ranks):
    batch, groups = sampled(shapes)
    shares = [packing.deal(batch, groups, rank, ranks) for rank in range(ranks)]
    assert sorted(i for share in shares for group in share for i in group) == list(range(len(batch)))
    whole = [sum(group in groups for group in share) for share in shares]
    assert min(whole) >= len(groups) // ranks


def test_ranks_get_as_many_responses_as_each_other():
    batch, groups = sampled([(5, [7] * 8)] * 9)
    counts = [sum(map(len, packing.deal(batch, groups, rank, 4))) for rank in range(4)]
    assert counts == [18, 18, 18, 18]


def test_a_pack_has_each_prompt_once_and_predicts_each_response_token_from_the_one_before_it():
    batch = RolloutBatch.empty()
    batch.append([1, 2], [3, 4], [-0.1, -0.2], 1.0, 0)
    batch.append([5, 6, 7], [8], [-0.3], 0.0, 1)
    batch.append([1, 2], [10, 11, 12], [-0.4, -0.5, -0.6], 0.0, 0)
    batch.append([1, 2], [13, 14], [-0.7, -0.8], 0.0, 0)
    pack = packing.build(batch, [[0, 2, 3], [1]], [0.5, -1.0, 2.0, 3.0], torch.device("cpu"))

    #                               prompts          0  3   2
    assert pack.tokens.tolist() == [[1, 2, 5, 6, 7, 3, 13, 10, 11]]
    assert pack.positions.tolist() == [[0, 1, 0, 1, 2, 2, 2, 2, 3]]
    assert pack.sequences.prompts == ((1, 2), (1, 3))
    short, long = pack.sequences.branches
    assert short.length == 1
    assert short.attended.tolist() == [[0, 1, 5], [0, 1, 6]]
    assert long.length == 2
    assert long.attended.tolist() == [[0, 1, 7, 8]]
    assert pack.targets.tolist() == [3, 4, 13, 14, 10, 11, 12, 8]
    assert pack.tokens[0, pack.rows].tolist() == [2, 3, 2, 13, 2, 10, 11, 7]
    assert pack.advantages.tolist() == [0.5, 0.5, 3.0, 3.0, 2.0, 2.0, 2.0, -1.0]
    expected = [-0.1, -0.2, -0.7, -0.8, -0.4, -0.5, -0.6, -0.3]
    assert pack.rollout_logprobs.tolist() == torch.tensor(expected).tolist()


def test_a_pack_can_be_filled_to_a_length_that_other_ranks_have():
    batch, groups = sampled([(5, [3, 2])])
    own = packing.build(batch, groups, [0.0] * 2, torch.device("cpu"))
    filled = packing.build(batch, groups, [0.0] * 2, torch.device("cpu"), length=12)
    assert own.tokens.shape[1] == packing.row_length(batch, groups) == 8
    assert filled.tokens[:, 4:].tolist() == own.tokens.tolist()
    assert (filled.rows - 4).tolist() == own.rows.tolist()
    assert filled.sequences.prompts == ((1, 4), (1, 5))
    for before, after in zip(own.sequences.branches, filled.sequences.branches, strict=True):
        assert (after.attended - 4).tolist() == before.attended.tolist()
    nothing = packing.build(batch, [], [], torch.device("cpu"), length=12)
    assert (nothing.tokens.shape[1], len(nothing.targets), nothing.filler) == (12, 1, True)
    assert (own.filler, filled.filler) == (False, False)
