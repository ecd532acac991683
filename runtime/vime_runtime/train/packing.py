"""Packs of whole sequences, end to end in one row: no padding is ever computed.

Sequences are sorted by length, so that a pack is a series of runs of equally long sequences;
attention then treats each run as one dense batch (see ``attention.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from vime_runtime.batch import RolloutBatch


@dataclass
class PackedSequences(PackedSeqParams):
    """Megatron's description of a packed row, and the runs of equal length it consists of.

    Attributes:
        runs: (number of sequences, tokens in each), in the order of the row.
    """

    runs: tuple[tuple[int, int], ...] = ()


@dataclass
class Pack:
    """One micro-batch. T tokens in all, of which N are predicted: the response tokens.

    Attributes:
        tokens: int64 [1, T].
        positions: int64 [1, T], counted from the start of each sequence.
        sequences: where each sequence begins and ends.
        rows: int64 [N], index in the row of the token *before* each response token.
        targets: int64 [N], the response tokens.
        advantages: float32 [N].
        rollout_logprobs: float32 [N], nats, as the engine reported them.
        old_logprobs: float32 [N], of the policy before the step's first update, where there are several.
        reference_logprobs: float32 [N], of the frozen reference, where there is one.
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


def plan(lengths: dict[int, int], budget: int) -> list[list[int]]:
    """Sort sequences by length and cut them into packs of at most ``budget`` tokens.

    Args:
        lengths: tokens of each sequence, by its index.
        budget: tokens in a pack; a longer sequence has a pack of its own.
    """
    packs: list[list[int]] = []
    filled = budget
    for index in sorted(lengths, key=lambda i: (lengths[i], i)):
        if filled + lengths[index] > budget:
            packs.append([])
            filled = 0
        packs[-1].append(index)
        filled += lengths[index]
    return packs


def build(batch: RolloutBatch, indices: list[int], advantages: list[float], device: torch.device) -> Pack:
    """Lay the chosen responses of a batch, each after its prompt, end to end in one row.

    Args:
        batch: the step's rollout.
        indices: which responses, sorted by total length.
        advantages: one number per response of the batch.
        device: where the pack is put.
    """
    tokens: list[int] = []
    positions: list[int] = []
    starts = [0]
    rows: list[int] = []
    for i in indices:
        sequence = batch.prompts[i] + batch.responses[i]
        tokens += sequence
        positions += range(len(sequence))
        starts.append(len(tokens))
        rows += range(len(tokens) - len(batch.responses[i]) - 1, len(tokens) - 1)
    lengths = [stop - start for start, stop in pairwise(starts)]

    def floats(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    def integers(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    return Pack(
        tokens=integers(tokens)[None],
        positions=integers(positions)[None],
        sequences=_sequences(starts, lengths, device),
        rows=integers(rows),
        targets=integers([token for i in indices for token in batch.responses[i]]),
        advantages=floats([advantages[i] for i in indices for _ in batch.responses[i]]),
        rollout_logprobs=floats([logprob for i in indices for logprob in batch.logprobs[i]]),
    )


def _sequences(starts: list[int], lengths: list[int], device: torch.device) -> PackedSequences:
    boundaries = torch.tensor(starts, dtype=torch.int32, device=device)
    return PackedSequences(
        qkv_format="thd",
        cu_seqlens_q=boundaries,
        cu_seqlens_kv=boundaries,
        max_seqlen_q=max(lengths),
        max_seqlen_kv=max(lengths),
        runs=tuple((len(list(run)), length) for length, run in groupby(lengths)),
    )
