"""Conversion between Hugging Face tensors and Megatron's fused, sharded parameters.

A layout describes one rank's shard as an ordered list of slices of full tensors. ``load`` concatenates them
along dimension 0, ``export`` puts the same slices back: one description for both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from vime_runtime.spec.model_families import ModelFamily, ParamMapping
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.weight_sync.buckets import LocalShard

if TYPE_CHECKING:
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorSlice:
    """``start:stop`` along ``dim`` of the full tensor ``name``, and all of its other dimension."""

    name: str
    dim: int
    start: int
    stop: int


@dataclass(frozen=True)
class Rank:
    """A rank of a process group."""

    index: int
    size: int

    def share(self, extent: int) -> tuple[int, int]:
        """Return this rank's range of an extent split evenly, rounded up; the last range may be shorter."""
        each = -(-extent // self.size)
        return min(self.index * each, extent), min((self.index + 1) * each, extent)


# The rank for a parameter that is not sharded.
UNSHARDED = Rank(0, 1)

Layout = Callable[[dict[str, Shape], ModelShape, Rank], list[TensorSlice]]


def _whole(tensors: dict[str, Shape], shape: ModelShape, rank: Rank) -> list[TensorSlice]:
    """Place the whole tensor on every rank."""
    return [TensorSlice(name, 0, 0, full[0]) for name, full in tensors.items()]


def _rows(tensors: dict[str, Shape], shape: ModelShape, rank: Rank) -> list[TensorSlice]:
    """Split the rows of each tensor over the ranks; a rank has its rows of the first one first."""
    return [TensorSlice(name, 0, *rank.share(full[0])) for name, full in tensors.items()]


def _columns(tensors: dict[str, Shape], shape: ModelShape, rank: Rank) -> list[TensorSlice]:
    """Split the columns over the ranks."""
    return [TensorSlice(name, 1, *rank.share(full[1])) for name, full in tensors.items()]


def _qkv(tensors: dict[str, Shape], shape: ModelShape, rank: Rank) -> list[TensorSlice]:
    """Split the query groups over the ranks; in a group the query heads come first, then key and value.

    The order is that of ``SelfAttention.get_query_key_value_tensors`` in Megatron-core.
    """
    query, key, value = tensors
    group_rows = shape.query_size // shape.num_key_value_heads
    head_rows = shape.head_dim
    slices = []
    for group in range(*rank.share(shape.num_key_value_heads)):
        slices.append(TensorSlice(query, 0, group * group_rows, (group + 1) * group_rows))
        slices += [TensorSlice(kv, 0, group * head_rows, (group + 1) * head_rows) for kv in (key, value)]
    return slices


LAYOUTS: dict[str, Layout] = {"whole": _whole, "rows": _rows, "columns": _columns, "qkv": _qkv}


class WeightBridge:
    """Convert the weights of one model between Megatron's shards and Hugging Face tensors."""

    def __init__(
        self,
        family: ModelFamily,
        shape: ModelShape,
        tensor_group: dist.ProcessGroup,
        expert_group: dist.ProcessGroup,
    ) -> None:
        """Describe the shards of this rank.

        Args:
            tensor_group: the tensor-parallel group.
            expert_group: the expert-parallel group. If it has several ranks, each expert is whole on one.
        """
        self._family = family
        self._shape = shape
        self._rank = Rank(tensor_group.rank(), tensor_group.size())
        self._group = tensor_group
        self._expert_rank = Rank(expert_group.rank(), expert_group.size())
        self._expert_group = expert_group
        self._tensors = family.tensors(shape)

    @torch.no_grad()
    def load(self, model: torch.nn.Module, checkpoint: HFCheckpoint) -> None:
        """Fill this rank's parameters, reading only its own slices from disk.

        Rows beyond the true vocabulary are zero.

        Raises:
            RuntimeError: the parameters of the model are not those that the family names.
        """
        for mapping, shard in self._shards(model):
            if shard is not None:
                for part, rows in self._split(mapping, self._rank_of(mapping), shard.zero_()):
                    rows.copy_(checkpoint.read(part.name, part.dim, part.start, part.stop))

    @torch.no_grad()
    def export(self, model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield every Hugging Face tensor, full, in the parameters' dtype and on their device.

        A collective over the tensor-parallel and the expert-parallel group: every rank must exhaust the
        iterator. A yielded tensor may share storage with a parameter; copy it before changing it.
        """
        like = next(model.parameters())
        for mapping, shard in self._shards(model):
            if mapping.expert is not None and self._expert_rank.size > 1:
                yield from self._broadcast_expert(mapping, mapping.expert, shard, like).items()
                continue
            assert shard is not None  # only experts are on other ranks
            if mapping.layout == "whole":
                yield from ((name, shard) for name in mapping.hf)
            else:
                yield from self._gather_full(mapping, shard).items()

    @torch.no_grad()
    def local_shards(
        self, model: torch.nn.Module, first_replica: bool = True
    ) -> Iterator[tuple[str, LocalShard]]:
        """Yield what this rank writes of every Hugging Face tensor, in the order of ``export``.

        This is no collective and copies nothing. The first rank writes a tensor that every rank has. Only the
        ranks of the first replica write tensors other than distributed experts.
        """
        dtype = next(model.parameters()).dtype
        for mapping, shard in self._shards(model):
            parts: dict[str, list[tuple[int, int, Tensor]]] = {name: [] for name in mapping.hf}
            distributed = mapping.expert is not None and self._expert_rank.size > 1
            replicated = mapping.layout == "whole" and self._rank.index > 0
            if shard is not None and (distributed or (first_replica and not replicated)):
                for part, rows in self._split(mapping, self._rank_of(mapping), shard):
                    parts[part.name].append((part.dim, part.start, rows))
            for name, own in parts.items():
                yield name, LocalShard(self._tensors[name], dtype, tuple(own))

    def _gather_full(self, mapping: ParamMapping, shard: Tensor) -> dict[str, Tensor]:
        """Return the full tensors of a sharded parameter. A collective over the tensor-parallel group."""
        full = {name: shard.new_empty(self._tensors[name]) for name in mapping.hf}
        shards = [shard]
        if self._rank.size > 1:
            shards = [torch.empty_like(shard) for _ in range(self._rank.size)]
            dist.all_gather(shards, shard, group=self._group)
        for index, one in enumerate(shards):
            for part, rows in self._split(mapping, Rank(index, self._rank.size), one):
                full[part.name].narrow(part.dim, part.start, part.stop - part.start).copy_(rows)
        return full

    def _broadcast_expert(
        self, mapping: ParamMapping, expert: int, shard: Tensor | None, like: Tensor
    ) -> dict[str, Tensor]:
        """Return an expert's tensors, sent by the rank that has them."""
        owner = expert // (self._shape.num_experts // self._expert_rank.size)
        full = {name: like.new_empty(self._tensors[name]) for name in mapping.hf}
        if shard is not None:
            for part, rows in self._split(mapping, UNSHARDED, shard):
                full[part.name].copy_(rows)
        for tensor in full.values():
            dist.broadcast(tensor, group=self._expert_group, group_src=owner)
        return full

    def _rank_of(self, mapping: ParamMapping) -> Rank:
        """Return the rank by which this rank's shard of a parameter is split."""
        return UNSHARDED if mapping.expert is not None and self._expert_rank.size > 1 else self._rank

    def _split(
        self, mapping: ParamMapping, rank: Rank, shard: Tensor
    ) -> Iterator[tuple[TensorSlice, Tensor]]:
        """Yield each slice of ``rank``'s shard with the view of the shard that holds it."""
        offset = 0
        tensors = {name: self._tensors[name] for name in mapping.hf}
        for part in LAYOUTS[mapping.layout](tensors, self._shape, rank):
            extent = part.stop - part.start
            if part.dim == 0:
                yield part, shard.narrow(0, offset, extent)  # [extent, ...]
                offset += extent
            else:
                yield part, shard  # [rows, extent]

    def _shards(self, model: torch.nn.Module) -> Iterator[tuple[ParamMapping, Tensor | None]]:
        """Yield every parameter of the whole model with this rank's shard; None for other ranks' experts."""
        here = self._shape.local_experts(self._expert_rank.index, self._expert_rank.size)
        parameters = dict(model.named_parameters())
        named = [(mapping, mapping.parameter(here)) for mapping in self._family.parameters(self._shape)]
        expected = {name for _, name in named if name is not None}
        if parameters.keys() != expected:
            raise RuntimeError(f"parameters without a mapping: {sorted(parameters.keys() ^ expected)}")
        for mapping, name in named:
            yield mapping, None if name is None else parameters[name].detach()
