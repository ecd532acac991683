"""Packs of groups, end to end in one row: no padding is computed, and a prompt only once for its responses.

The responses of a group begin alike, so the prompt is laid out once and each response attends to it. The
last token of a response is laid out nowhere: nothing is predicted from it. Prompts come first, then the
responses, both in runs of equal shape; attention treats each run as one dense batch (see ``attention.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from vime_runtime.batch import RolloutBatch

# Indices of responses to one prompt.
Group = list[int]


@dataclass(frozen=True)
class Branches:
    """A run of responses that are equally long, to prompts that are equally long.

    Attributes:
        length: tokens that each response has in the row.
        attended: int64 [responses, prompt + length], the rows of the prompt and of the response itself.
    """

    length: int
    attended: Tensor


@dataclass
class PackedSequences(PackedSeqParams):
    """What Megatron carries to the attention of each layer.

    Megatron's own fields describe one sequence as long as the row: what a token attends to is said here.

    Attributes:
        prompts: (number of prompts, tokens in each), in the order of the row.
        branches: the responses, in the order of the row.
    """

    prompts: tuple[tuple[int, int], ...] = ()
    branches: tuple[Branches, ...] = ()


@dataclass
class Pack:
    """One micro-batch. T tokens in all, from which N are predicted: the response tokens.

    Attributes:
        tokens: int64 [1, T].
        positions: int64 [1, T]; those of a response go on where its prompt ends.
        sequences: which tokens attend to which.
        rows: int64 [N], index in the row of the token *before* each response token.
        targets: int64 [N], the response tokens.
        advantages: float32 [N].
        rollout_logprobs: float32 [N], nats, as the engine reported them.
        old_logprobs: float32 [N], of the policy before the step's first update, where there are several.
        reference_logprobs: float32 [N], of the frozen reference, where there is one.
        filler: whether there is nothing to learn from in it; N is 1 then, of a token that nobody asks for.
    """

    tokens: Tensor
    positions: Tensor
    sequences: PackedSequences
    rows: Tensor
    targets: Tensor
    advantages: Tensor
    rollout_logprobs: Tensor
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None
    filler: bool = False


def deal(batch: RolloutBatch, groups: Sequence[Group], rank: int, ranks: int) -> list[Group]:
    """The share of one of ``ranks`` data-parallel ranks: as many responses as the others, about as long.

    Whole groups as long as they go round, dealt in order of length; of the rest each rank gets its part.
    """
    ordered = sorted(groups, key=lambda group: _tokens(batch, group))
    whole = len(ordered) - len(ordered) % ranks
    by_length = [sorted(group, key=lambda i: len(batch.responses[i])) for group in ordered[whole:]]
    shares = ordered[:whole][rank::ranks] + [group[rank::ranks] for group in by_length]
    return [share for share in shares if share]


def plan(batch: RolloutBatch, groups: Sequence[Group], budget: int) -> list[list[Group]]:
    """Sort groups by the length of their prompts and cut them into packs of at most ``budget`` tokens.

    A larger group goes into several packs, with its prompt in each; a response that is too long with its
    prompt has a pack of its own.
    """
    pieces = [piece for group in groups for piece in _cut(batch, group, budget)]
    packs: list[list[Group]] = []
    filled = budget
    for piece in sorted(pieces, key=lambda piece: len(batch.prompts[piece[0]])):
        size = _tokens(batch, piece)
        if filled + size > budget:
            packs.append([])
            filled = 0
        packs[-1].append(piece)
        filled += size
    return packs


def build(
    batch: RolloutBatch,
    groups: Sequence[Group],
    advantages: list[float],
    device: torch.device,
    length: int = 0,
) -> Pack:
    """Lay groups out in one row.

    Args:
        batch: the step's rollout.
        groups: sorted by the length of their prompts.
        advantages: one number per response of the batch.
        device: where the pack is put.
        length: tokens that the row has at least; the first ones belong to no group then.
    """
    filling = max(length - row_length(batch, groups), 0)
    tokens: list[int] = [0] * filling
    positions: list[int] = list(range(filling))
    rows: list[int] = []
    branches: list[Branches] = []
    prompt_rows = {}
    for group in groups:
        prompt = batch.prompts[group[0]]
        prompt_rows |= dict.fromkeys(group, range(len(tokens), len(tokens) + len(prompt)))
        tokens += prompt
        positions += range(len(prompt))

    def shape(i: int) -> tuple[int, int]:
        return len(batch.prompts[i]), len(batch.responses[i])

    order = sorted((i for group in groups for i in group), key=shape)
    for (prompt_length, length), run in groupby(order, key=shape):
        attended = []
        for i in run:
            own = range(len(tokens), len(tokens) + length - 1)
            tokens += batch.responses[i][:-1]
            positions += range(prompt_length, prompt_length + length - 1)
            rows += [prompt_rows[i][-1], *own]
            attended.append([*prompt_rows[i], *own])
        if length > 1:
            branches.append(Branches(length - 1, _integers(attended, device)))

    runs = groupby(len(batch.prompts[group[0]]) for group in groups)
    prompts = [(1, filling)] * (filling > 0) + [(len(list(run)), length) for length, run in runs]
    boundaries = torch.tensor([0, len(tokens)], dtype=torch.int32, device=device)
    sequences = PackedSequences(
        qkv_format="thd",
        cu_seqlens_q=boundaries,
        cu_seqlens_kv=boundaries,
        max_seqlen_q=max(positions) + 1,
        max_seqlen_kv=max(positions) + 1,
        prompts=tuple(prompts),
        branches=tuple(branches),
    )
    return Pack(
        tokens=_integers([tokens], device),
        positions=_integers([positions], device),
        sequences=sequences,
        rows=_integers(rows or [0], device),
        targets=_integers([token for i in order for token in batch.responses[i]] or [0], device),
        advantages=_floats([advantages[i] for i in order for _ in batch.responses[i]] or [0.0], device),
        rollout_logprobs=_floats([logprob for i in order for logprob in batch.logprobs[i]] or [0.0], device),
        filler=not groups,
    )


def row_length(batch: RolloutBatch, groups: Sequence[Group]) -> int:
    """How many tokens the row of these groups has."""
    return sum(_tokens(batch, group) for group in groups)


def _cut(batch: RolloutBatch, group: Group, budget: int) -> list[Group]:
    """A group as pieces of at most ``budget`` tokens, the prompt counted in each; none is empty."""
    pieces: list[Group] = []
    for i in sorted(group, key=lambda i: len(batch.responses[i])):
        if not pieces or _tokens(batch, [*pieces[-1], i]) > budget:
            pieces.append([])
        pieces[-1].append(i)
    return pieces


def _tokens(batch: RolloutBatch, group: Group) -> int:
    """How many tokens of a row these responses to one prompt take."""
    return len(batch.prompts[group[0]]) + sum(len(batch.responses[i]) - 1 for i in group)


def _floats(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _integers(values: Sequence[object], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
