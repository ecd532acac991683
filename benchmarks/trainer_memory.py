"""The memory of the trainer's loss, the balance of ranks and the fill of rows, against simpler ways.

Memory is the growth of a process's largest resident set (VmHWM) while it computes.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from vime_runtime.batch import RolloutBatch
from vime_runtime.trainer import logprobs, packing
from vime_runtime.trainer.packing import Group

MIB = 1 << 20
HIDDEN, TEMPERATURE = 64, 0.7
SHAPES = ((2048, 32_768), (4096, 32_768))
RANKS, BUDGET = 8, 8192
SEEDS = range(3)


class OneRank:
    """A tensor-parallel group of one rank."""

    def rank(self) -> int:
        """Return the rank."""
        return 0

    def size(self) -> int:
        """Return the number of ranks."""
        return 1


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities as torch computes them, from all logits."""
    logits = (hidden @ weight.T).float() / TEMPERATURE
    return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]


def chunked(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return them as the trainer computes them."""
    group: torch.distributed.ProcessGroup = OneRank()  # type: ignore[assignment]
    return logprobs.token_logprobs(hidden, weight, targets, TEMPERATURE, len(weight), group)[0]


WAYS: dict[str, Callable[..., torch.Tensor]] = {"plain": plain, "chunked": chunked}


def peak(way: str, tokens: int, columns: int) -> int:
    """Return the bytes of a forward and backward pass in this process, which has done nothing else."""
    hidden = torch.randn(tokens, HIDDEN, requires_grad=True)
    weight = torch.randn(columns, HIDDEN, requires_grad=True)
    targets = torch.randint(columns, (tokens,))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _high_water()
    WAYS[way](hidden, weight, targets).sum().backward()
    return _high_water() - before


def _high_water() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def realistic(seed: int, median: int) -> tuple[RolloutBatch, list[Group]]:
    """Return 256 groups of 8 responses with log-normal lengths."""
    draw = random.Random(seed)  # nosec B311 # data, not keys

    def length(middle: int, longest: int) -> int:
        return min(max(round(draw.lognormvariate(math.log(middle), 0.7)), 1), longest)

    batch, groups = RolloutBatch(), []
    for group in range(256):
        prompt = [0] * length(150, 1024)
        groups.append(list(range(len(batch), len(batch) + 8)))
        for _ in groups[-1]:
            response = [0] * length(median, 2048)
            batch.append(prompt, response, [0.0] * len(response), 0.0, group)
    return batch, groups


def round_robin(batch: RolloutBatch, groups: list[Group]) -> list[list[Group]]:
    """Distribute groups in order of length."""
    ordered = sorted(groups, key=lambda group: packing.row_length(batch, [group]))
    return [ordered[rank::RANKS] for rank in range(RANKS)]


def next_fit(batch: RolloutBatch, groups: list[Group]) -> list[list[Group]]:
    """Fill one row after the other with groups in order of prompt length."""
    rows: list[list[Group]] = []
    for group in sorted(groups, key=lambda group: len(batch.prompts[group[0]])):
        if not rows or packing.row_length(batch, [*rows[-1], group]) > BUDGET:
            rows.append([])
        rows[-1].append(group)
    return rows


def balance(batch: RolloutBatch, shards: list[list[Group]]) -> float:
    """Return by how much the fullest rank is above the mean."""
    tokens = [packing.row_length(batch, shard) for shard in shards]
    return max(tokens) * len(tokens) / sum(tokens) - 1


def fill(batch: RolloutBatch, rows: list[list[Group]]) -> float:
    """Return which part of the rows has tokens; a row longer than the budget is full."""
    return sum(min(packing.row_length(batch, row), BUDGET) for row in rows) / (BUDGET * len(rows))


def main() -> None:
    """Measure and print."""
    for tokens, columns in SHAPES:
        found = {way: _in_a_process(way, tokens, columns) for way in WAYS}
        print(
            f"  loss of {tokens} tokens x {columns} columns in fp32: {found['chunked'] / MIB:.0f} MiB, "
            f"{found['chunked'] / found['plain']:.2f} of torch's {found['plain'] / MIB:.0f} MiB",
            flush=True,
        )
    for median in (200, 500):
        for seed in SEEDS:
            batch, groups = realistic(seed, median)
            shards = packing.shard_groups(batch, groups, RANKS)
            rows = [row for shard in shards for row in packing.make_micro_batches(batch, shard, BUDGET)]
            simple = [row for shard in round_robin(batch, groups) for row in next_fit(batch, shard)]
            before = balance(batch, round_robin(batch, groups))
            print(
                f"  median {median}, seed {seed}: fullest of {RANKS} ranks {balance(batch, shards):+.2%} "
                f"(round-robin {before:+.2%}), rows {fill(batch, rows):.2f} full "
                f"(one after the other {fill(batch, simple):.2f})"
            )


def _in_a_process(way: str, tokens: int, columns: int) -> int:
    code = f"from benchmarks.trainer_memory import peak; print(peak({way!r}, {tokens}, {columns}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True, text=True
    )
    return int(done.stdout.split()[-1])
