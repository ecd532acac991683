"""Micro-batches: groups of responses packed into one row, without padding and with each prompt only once.

The responses of a group have the same prompt, so the prompt is in the row once and each response attends to
it. The last token of a response is not in the row: nothing is predicted from it. Prompts come first, then
responses, both sorted so that equal lengths are adjacent. Attention computes each run of equal lengths as one
dense batch (see ``attention.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from vime_runtime.batch import RolloutBatch

# Indices of responses to one prompt.
Group = list[int]


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


def shard_groups(batch: RolloutBatch, groups: Sequence[Group], rank: int, ranks: int) -> list[Group]:
    """Return the groups of one data-parallel rank; the ranks get equal shares of similar length.

    Whole groups are distributed round-robin in order of length. Of each remaining group every rank gets a
    part.
    """
    ordered = sorted(groups, key=lambda group: _tokens(batch, group))
    whole = len(ordered) - len(ordered) % ranks
    by_length = [sorted(group, key=lambda i: len(batch.responses[i])) for group in ordered[whole:]]
    shards = ordered[:whole][rank::ranks] + [group[rank::ranks] for group in by_length]
    return [shard for shard in shards if shard]


def make_micro_batches(batch: RolloutBatch, groups: Sequence[Group], budget: int) -> list[list[Group]]:
    """Sort groups by prompt length and split them into micro-batches of at most ``budget`` tokens.

    A larger group is split, with its prompt in each part. A response that exceeds the budget together with
    its prompt is a micro-batch by itself.
    """
    parts = [part for group in groups for part in _split(batch, group, budget)]
    micro_batches: list[list[Group]] = []
    filled = budget
    for part in sorted(parts, key=lambda part: len(batch.prompts[part[0]])):
        size = _tokens(batch, part)
        if filled + size > budget:
            micro_batches.append([])
            filled = 0
        micro_batches[-1].append(part)
        filled += size
    return micro_batches


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


def _split(batch: RolloutBatch, group: Group, budget: int) -> list[Group]:
    """Split a group into parts of at most ``budget`` tokens including the prompt; no part is empty."""
    parts: list[Group] = []
    for i in sorted(group, key=lambda i: len(batch.responses[i])):
        if not parts or _tokens(batch, [*parts[-1], i]) > budget:
            parts.append([])
        parts[-1].append(i)
    return parts


def _tokens(batch: RolloutBatch, group: Group) -> int:
    """Return the number of tokens that a group has in a row."""
    return len(batch.prompts[group[0]]) + sum(len(batch.responses[i]) - 1 for i in group)
