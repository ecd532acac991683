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
    batch = RolloutBatch()
    groups = []
    for number, (prompt, responses) in enumerate(shapes):
        groups.append(list(range(len(batch), len(batch) + len(responses))))
        for length in responses:
            batch.append([number] * prompt, [number] * length, [0.0] * length, 0.0, number)
    return batch, groups


def tokens_in_a_row(batch: RolloutBatch, parts: list[packing.Group]) -> int:
    return sum(len(batch.prompts[part[0]]) + sum(len(batch.responses[i]) - 1 for i in part) for part in parts)


@given(SHAPES, st.integers(1, 60))
def test_micro_batches_have_every_response_once_and_keep_to_the_budget(shapes, budget):
    batch, groups = sampled(shapes)
    micro_batches = packing.make_micro_batches(batch, groups, budget)
    assert sorted(i for parts in micro_batches for part in parts for i in part) == list(range(len(batch)))
    for parts in micro_batches:
        alone = len(parts) == len(parts[0]) == 1
        assert alone or tokens_in_a_row(batch, parts) <= budget
        prompts = [len(batch.prompts[part[0]]) for part in parts]
        assert prompts == sorted(prompts)
        assert all(batch.groups[i] == batch.groups[part[0]] for part in parts for i in part)


@given(SHAPES, st.integers(1, 5))
def test_shards_have_every_response_once_and_whole_groups_round_robin(shapes, ranks):
    batch, groups = sampled(shapes)
    shards = [packing.shard_groups(batch, groups, rank, ranks) for rank in range(ranks)]
    assert sorted(i for shard in shards for group in shard for i in group) == list(range(len(batch)))
    whole = [sum(group in groups for group in shard) for shard in shards]
    assert min(whole) >= len(groups) // ranks


def test_shards_have_equally_many_responses():
    batch, groups = sampled([(5, [7] * 8)] * 9)
    counts = [sum(map(len, packing.shard_groups(batch, groups, rank, 4))) for rank in range(4)]
    assert counts == [18, 18, 18, 18]


def test_a_micro_batch_has_each_prompt_once():
    batch = RolloutBatch()
    batch.append([1, 2], [3, 4], [-0.1, -0.2], 1.0, 0)
    batch.append([5, 6, 7], [8], [-0.3], 0.0, 1)
    batch.append([1, 2], [10, 11, 12], [-0.4, -0.5, -0.6], 0.0, 0)
    batch.append([1, 2], [13, 14], [-0.7, -0.8], 0.0, 0)
    row = packing.pack(batch, [[0, 2, 3], [1]], [0.5, -1.0, 2.0, 3.0], torch.device("cpu"))

    #                               prompts          0  3   2
    assert row.tokens.tolist() == [[1, 2, 5, 6, 7, 3, 13, 10, 11]]
    assert row.positions.tolist() == [[0, 1, 0, 1, 2, 2, 2, 2, 3]]
    assert row.sequences.prompt_runs == ((1, 2), (1, 3))
    short, long = row.sequences.response_runs
    assert short.length == 1
    assert short.key_rows.tolist() == [[0, 1, 5], [0, 1, 6]]
    assert long.length == 2
    assert long.key_rows.tolist() == [[0, 1, 7, 8]]
    assert row.targets.tolist() == [3, 4, 13, 14, 10, 11, 12, 8]
    assert row.tokens[0, row.logit_rows].tolist() == [2, 3, 2, 13, 2, 10, 11, 7]
    assert row.advantages.tolist() == [0.5, 0.5, 3.0, 3.0, 2.0, 2.0, 2.0, -1.0]
    expected = [-0.1, -0.2, -0.7, -0.8, -0.4, -0.5, -0.6, -0.3]
    assert row.rollout_logprobs.tolist() == torch.tensor(expected).tolist()


def test_a_micro_batch_is_padded_to_a_length():
    batch, groups = sampled([(5, [3, 2])])
    own = packing.pack(batch, groups, [0.0] * 2, torch.device("cpu"))
    padded = packing.pack(batch, groups, [0.0] * 2, torch.device("cpu"), min_length=12)
    assert own.tokens.shape[1] == packing.row_length(batch, groups) == 8
    assert padded.tokens[:, 4:].tolist() == own.tokens.tolist()
    assert (padded.logit_rows - 4).tolist() == own.logit_rows.tolist()
    assert padded.sequences.prompt_runs == ((1, 4), (1, 5))
    for before, after in zip(own.sequences.response_runs, padded.sequences.response_runs, strict=True):
        assert (after.key_rows - 4).tolist() == before.key_rows.tolist()
    padding = packing.pack(batch, [], [], torch.device("cpu"), min_length=12)
    assert (padding.tokens.shape[1], len(padding.targets), padding.is_padding) == (12, 1, True)
    assert (own.is_padding, padded.is_padding) == (False, False)
