"""Micro-batches: groups of responses packed into one row, without padding and with each prompt only once.

The responses of a group have the same prompt, so the prompt is in the row once and each response attends to
it. The last token of a response is not in the row: nothing is predicted from it. Prompts come first, then
responses, both sorted so that equal lengths are adjacent. Attention computes each run of equal lengths as one
dense batch (see ``attention.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TypeVar

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from vime_runtime.batch import RolloutBatch

# Indices of responses to one prompt.
Group = list[int]
Item = TypeVar("Item")
# How many tokens more than the mean a rank may get before a group is split, whose prompt is then computed on
# several ranks.
MAX_IMBALANCE = 0.05


@dataclass(frozen=True)
class ResponseRun:
    """Adjacent responses of equal length to prompts of equal length.

    Attributes:
        length: tokens of each response in the row.
        key_rows: int64 [responses, prompt + length], the rows of the prompt and of the response itself.
    """

    length: int
    key_rows: Tensor


@dataclass
class PackedSequences(PackedSeqParams):  # type: ignore[misc]
    """The argument that Megatron passes to the attention of each layer.

    Megatron's own fields describe one sequence of the row's length; the fields below say which token attends
    to which.

    Attributes:
        prompt_runs: (number of prompts, tokens of each), in the order of the row.
        response_runs: the responses, in the order of the row.
    """

    prompt_runs: tuple[tuple[int, int], ...] = ()
    response_runs: tuple[ResponseRun, ...] = ()


@dataclass
class MicroBatch:
    """One row of T tokens, of which N response tokens are predicted.

    Attributes:
        tokens: int64 [1, T].
        positions: int64 [1, T]; those of a response continue those of its prompt.
        sequences: which tokens attend to which.
        logit_rows: int64 [N], row of the token *before* each response token.
        targets: int64 [N], the response tokens.
        advantages: float32 [N].
        rollout_logprobs: float32 [N], in nats, as the engine reported them.
        old_logprobs: float32 [N], of the policy before the step's first update, if there are several updates.
        reference_logprobs: float32 [N], of the frozen reference model, if there is one.
        is_padding: True if there is no response in it; N is 1 then, and the loss ignores it.
    """

    tokens: Tensor
    positions: Tensor
    sequences: PackedSequences
    logit_rows: Tensor
    targets: Tensor
    advantages: Tensor
    rollout_logprobs: Tensor
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None
    is_padding: bool = False


def shard_groups(batch: RolloutBatch, groups: Sequence[Group], ranks: int) -> list[list[Group]]:
    """Distribute groups over the data-parallel ranks, so that all get about equally many tokens.

    The longest group comes first, and each goes to the rank with the fewest tokens (Graham, Bounds on
    Multiprocessing Timing Anomalies, 1969). As few groups as possible are split over several ranks, the
    longest ones. A rank gets nothing only if there are fewer responses than ranks.
    """
    ordered = sorted(groups, key=lambda group: _tokens(batch, group), reverse=True)
    plans = []
    for split in range(min(len(groups), ranks) + 1):
        plans.append(plan := _Shards.of(batch, ordered[split:], ordered[:split], ranks))
        if not plan.idle and max(plan.tokens) * ranks <= sum(plan.tokens) * (1 + MAX_IMBALANCE):
            break
    return min(plans, key=lambda plan: (plan.idle, max(plan.tokens))).groups


def make_micro_batches(batch: RolloutBatch, groups: Sequence[Group], budget: int) -> list[list[Group]]:
    """Distribute groups over micro-batches of at most ``budget`` tokens, longest row first.

    Within a row they are sorted by prompt length. A larger group is split, with its prompt in each part. A
    response that exceeds the budget together with its prompt is a micro-batch by itself.
    """
    parts = []
    for group in groups:
        prompt = len(batch.prompts[group[0]])
        parts += _first_fit(group, lambda i: len(batch.responses[i]) - 1, budget - prompt)
    rows = _first_fit(parts, lambda part: _tokens(batch, part), budget)
    return sorted(
        (sorted(row, key=lambda part: len(batch.prompts[part[0]])) for row in rows),
        key=lambda row: row_length(batch, row),
        reverse=True,
    )


def row_length(batch: RolloutBatch, groups: Sequence[Group]) -> int:
    """Return the number of tokens in the row of these groups."""
    return sum(_tokens(batch, group) for group in groups)


def pack(
    batch: RolloutBatch,
    groups: Sequence[Group],
    advantages: list[float],
    device: torch.device,
    min_length: int = 0,
) -> MicroBatch:
    """Pack groups into one row.

    Args:
        batch: the step's rollout.
        groups: sorted by prompt length; without any the micro-batch is padding.
        advantages: one number per response of the batch.
        device: device of the tensors.
        min_length: length to which a shorter row is padded, at its start.
    """
    integers = partial(torch.tensor, dtype=torch.int64, device=device)
    floats = partial(torch.tensor, dtype=torch.float32, device=device)
    padding = max(min_length - row_length(batch, groups), 0)
    tokens: list[int] = [0] * padding
    positions: list[int] = list(range(padding))
    logit_rows: list[int] = []
    response_runs: list[ResponseRun] = []
    prompt_rows: dict[int, range] = {}  # of each response
    for group in groups:
        prompt = batch.prompts[group[0]]
        prompt_rows |= dict.fromkeys(group, range(len(tokens), len(tokens) + len(prompt)))
        tokens += prompt
        positions += range(len(prompt))

    def lengths(i: int) -> tuple[int, int]:
        return len(batch.prompts[i]), len(batch.responses[i])

    order = sorted((i for group in groups for i in group), key=lengths)
    for (prompt_length, length), run in groupby(order, key=lengths):
        key_rows = []
        for i in run:
            own_rows = range(len(tokens), len(tokens) + length - 1)
            tokens += batch.responses[i][:-1]
            positions += range(prompt_length, prompt_length + length - 1)
            logit_rows += [prompt_rows[i][-1], *own_rows]
            key_rows.append([*prompt_rows[i], *own_rows])
        if length > 1:
            response_runs.append(ResponseRun(length - 1, integers(key_rows)))

    runs = groupby(len(batch.prompts[group[0]]) for group in groups)
    prompt_runs = [(1, padding)] * (padding > 0) + [(len(list(run)), length) for length, run in runs]
    boundaries = torch.tensor([0, len(tokens)], dtype=torch.int32, device=device)
    sequences = PackedSequences(
        qkv_format="thd",
        cu_seqlens_q=boundaries,
        cu_seqlens_kv=boundaries,
        max_seqlen_q=max(positions) + 1,
        max_seqlen_kv=max(positions) + 1,
        prompt_runs=tuple(prompt_runs),
        response_runs=tuple(response_runs),
    )
    return MicroBatch(
        tokens=integers([tokens]),
        positions=integers([positions]),
        sequences=sequences,
        logit_rows=integers(logit_rows or [0]),
        targets=integers([token for i in order for token in batch.responses[i]] or [0]),
        advantages=floats([advantages[i] for i in order for _ in batch.responses[i]] or [0.0]),
        rollout_logprobs=floats([logprob for i in order for logprob in batch.logprobs[i]] or [0.0]),
        is_padding=not groups,
    )


@dataclass
class _Shards:
    """Groups and their tokens, by rank."""

    groups: list[list[Group]]
    tokens: list[int]

    @classmethod
    def of(cls, batch: RolloutBatch, whole: Sequence[Group], split: Sequence[Group], ranks: int) -> _Shards:
        """Distribute the whole groups, then each response of the others, longest first."""
        shards = cls([[] for _ in range(ranks)], [0] * ranks)
        for group in whole:
            rank = shards.tokens.index(min(shards.tokens))
            shards.groups[rank].append(group)
            shards.tokens[rank] += _tokens(batch, group)
        for group in split:
            parts: dict[int, Group] = {}
            for i in sorted(group, key=lambda i: len(batch.responses[i]), reverse=True):
                rank = shards.tokens.index(min(shards.tokens))
                shards.tokens[rank] += len(batch.responses[i]) - 1 if rank in parts else _tokens(batch, [i])
                parts.setdefault(rank, []).append(i)
            for rank, part in parts.items():
                shards.groups[rank].append(part)
        return shards

    @property
    def idle(self) -> int:
        """Number of ranks without a group."""
        return sum(not groups for groups in self.groups)


def _first_fit(items: Sequence[Item], size: Callable[[Item], int], capacity: int) -> list[list[Item]]:
    """Distribute items over bins: each into the first with room for it, the largest items first.

    First-fit decreasing: Johnson, Near-Optimal Bin Packing Algorithms, 1973. An item above the capacity is in
    a bin by itself.
    """
    bins: list[list[Item]] = []
    room: list[int] = []
    for item in sorted(items, key=size, reverse=True):
        needed = size(item)
        chosen = next((number for number, free in enumerate(room) if free >= needed), len(bins))
        if chosen == len(bins):
            bins.append([])
            room.append(capacity)
        bins[chosen].append(item)
        room[chosen] -= needed
    return bins


def _tokens(batch: RolloutBatch, group: Group) -> int:
    """Return the number of tokens that a group has in a row."""
    return len(batch.prompts[group[0]]) + sum(len(batch.responses[i]) - 1 for i in group)
