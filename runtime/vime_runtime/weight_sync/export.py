"""Between Hugging Face tensors and Megatron's fused, sharded parameters, both ways.

A layout describes one rank's shard as an ordered list of pieces of full tensors. Import lays the
pieces end to end along dimension 0; export puts the same pieces back. One description for both
directions: they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from vime_runtime.spec.model_families import ModelFamily, ParamMapping
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
from vime_runtime.weight_sync.local_shard import Held


@dataclass(frozen=True)
class Piece:
    """Rows ``start:stop`` along ``dim`` of the full tensor ``name``; all of the other dimension."""

    name: str
    dim: int
    start: int
    stop: int


@dataclass(frozen=True)
class Rank:
    """One place in the tensor-parallel group."""

    index: int
    size: int

    def share(self, extent: int) -> tuple[int, int]:
        """This rank's range of an extent split evenly, rounded up; the last range may be cut short."""
        each = -(-extent // self.size)
        return min(self.index * each, extent), min((self.index + 1) * each, extent)


# Where a parameter is not split.
ALONE = Rank(0, 1)

Layout = Callable[[dict[str, tuple[int, ...]], ModelShape, Rank], list[Piece]]


def _whole(tensors: dict[str, tuple[int, ...]], shape: ModelShape, rank: Rank) -> list[Piece]:
    """Every rank holds the whole tensor."""
    return [Piece(name, 0, 0, full[0]) for name, full in tensors.items()]


def _rows(tensors: dict[str, tuple[int, ...]], shape: ModelShape, rank: Rank) -> list[Piece]:
    """Each rank holds its rows; of several tensors, its rows of the first, then of the second."""
    return [Piece(name, 0, *rank.share(full[0])) for name, full in tensors.items()]


def _columns(tensors: dict[str, tuple[int, ...]], shape: ModelShape, rank: Rank) -> list[Piece]:
    """Each rank holds its columns."""
    return [Piece(name, 1, *rank.share(full[1])) for name, full in tensors.items()]


def _qkv(tensors: dict[str, tuple[int, ...]], shape: ModelShape, rank: Rank) -> list[Piece]:
    """Each rank holds its query groups; within a group the queries, then the key, then the value.

    The order is that of ``SelfAttention.get_query_key_value_tensors`` in Megatron-core.
    """
    query, key, value = tensors
    queries = shape.query_size // shape.num_key_value_heads
    pieces = []
    for group in range(*rank.share(shape.num_key_value_heads)):
        pieces.append(Piece(query, 0, group * queries, (group + 1) * queries))
        pieces += [Piece(kv, 0, group * shape.head_dim, (group + 1) * shape.head_dim) for kv in (key, value)]
    return pieces


LAYOUTS: dict[str, Layout] = {"whole": _whole, "rows": _rows, "columns": _columns, "qkv": _qkv}


class Bridge:
    """Moves the weights of one model between its Megatron shards and Hugging Face tensors."""

    def __init__(
        self,
        family: ModelFamily,
        shape: ModelShape,
        rank: Rank,
        group: dist.ProcessGroup | None = None,
        expert_rank: Rank = ALONE,
        expert_group: dist.ProcessGroup | None = None,
    ) -> None:
        """Take the places of this rank in the tensor-parallel and in the expert-parallel group.

        With more than one expert-parallel rank an expert is whole on one of them.
        """
        self._family = family
        self._shape = shape
        self._rank = rank
        self._group = group
        self._expert_rank = expert_rank
        self._expert_group = expert_group
        self._tensors = family.tensors(shape)

    @torch.no_grad()
    def load(self, model: torch.nn.Module, checkpoint: HFCheckpoint) -> None:
        """Fill this rank's parameters, reading from disk no more than its own pieces.

        Rows beyond the true vocabulary are zero. Raises RuntimeError when the model has a parameter
        that the family does not name, or the other way round.
        """
        for mapping, shard in self._shards(model):
            if shard is None:
                continue
            for piece, rows in self._cut(mapping, self._split(mapping), shard.zero_()):
                rows.copy_(checkpoint.read(piece.name, piece.dim, piece.start, piece.stop))

    @torch.no_grad()
    def export(self, model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield every Hugging Face tensor, full, in the parameters' dtype and on their device.

        A collective over the tensor-parallel and the expert-parallel group: every rank must run it to the
        end. A yielded tensor may share storage with a parameter; take a copy before changing it.
        """
        for mapping, shard in self._shards(model):
            if mapping.layout == "whole":
                yield from ((name, shard) for name in mapping.hf)
            elif mapping.expert is not None and self._expert_rank.size > 1:
                yield from self._sent(mapping, shard, next(model.parameters())).items()
            else:
                yield from self._assemble(mapping, shard).items()

    @torch.no_grad()
    def held(self, model: torch.nn.Module, first: bool = True) -> Iterator[tuple[str, Held]]:
        """Yield what this rank has of every Hugging Face tensor, in the order of ``export``.

        No collective, and nothing is copied. What every rank has, the first one writes; what every replica
        has, and not only its own experts, the ranks of the ``first``.
        """
        dtype = next(model.parameters()).dtype
        for mapping, shard in self._shards(model):
            parts: dict[str, list[tuple[int, int, Tensor]]] = {name: [] for name in mapping.hf}
            divided = mapping.expert is not None and self._expert_rank.size > 1
            mine = divided or (first and (mapping.layout != "whole" or self._rank.index == 0))
            if shard is not None and mine:
                for piece, rows in self._cut(mapping, self._split(mapping), shard):
                    parts[piece.name].append((piece.dim, piece.start, rows))
            for name, own in parts.items():
                yield name, Held(self._tensors[name], dtype, tuple(own))

    def _assemble(self, mapping: ParamMapping, shard: Tensor) -> dict[str, Tensor]:
        full = {name: shard.new_empty(self._tensors[name]) for name in mapping.hf}
        for index, part in enumerate(self._gather(shard)):
            for piece, rows in self._cut(mapping, Rank(index, self._rank.size), part):
                full[piece.name].narrow(piece.dim, piece.start, piece.stop - piece.start).copy_(rows)
        return full

    def _sent(self, mapping: ParamMapping, shard: Tensor | None, like: Tensor) -> dict[str, Tensor]:
        """An expert's tensors, which the rank that has them sends to the others."""
        owner = mapping.expert // (self._shape.num_experts // self._expert_rank.size)
        full = {name: like.new_empty(self._tensors[name]) for name in mapping.hf}
        if shard is not None:
            for piece, rows in self._cut(mapping, ALONE, shard):
                full[piece.name].copy_(rows)
        for tensor in full.values():
            dist.broadcast(tensor, group=self._expert_group, group_src=owner)
        return full

    def _split(self, mapping: ParamMapping) -> Rank:
        """How this rank's shard of a parameter is cut."""
        return ALONE if mapping.expert is not None and self._expert_rank.size > 1 else self._rank

    def _cut(self, mapping: ParamMapping, rank: Rank, shard: Tensor) -> Iterator[tuple[Piece, Tensor]]:
        """Each piece of ``rank``'s shard with the view of the shard that holds it."""
        offset = 0
        tensors = {name: self._tensors[name] for name in mapping.hf}
        for piece in LAYOUTS[mapping.layout](tensors, self._shape, rank):
            extent = piece.stop - piece.start
            if piece.dim == 0:
                yield piece, shard.narrow(0, offset, extent)
                offset += extent
            else:
                yield piece, shard

    def _gather(self, shard: Tensor) -> list[Tensor]:
        if self._rank.size == 1:
            return [shard]
        parts = [torch.empty_like(shard) for _ in range(self._rank.size)]
        dist.all_gather(parts, shard, group=self._group)
        return parts

    def _shards(self, model: torch.nn.Module) -> Iterator[tuple[ParamMapping, Tensor | None]]:
        """Every parameter of the whole model, with what this rank has of it; None for others' experts."""
        here = self._shape.local_experts(self._expert_rank.index, self._expert_rank.size)
        parameters = dict(model.named_parameters())
        named = [(mapping, mapping.parameter(here)) for mapping in self._family.parameters(self._shape)]
        expected = {name for _, name in named if name is not None}
        if parameters.keys() != expected:
            raise RuntimeError(f"parameters without a mapping: {sorted(parameters.keys() ^ expected)}")
        for mapping, name in named:
            yield mapping, None if name is None else parameters[name].detach()
