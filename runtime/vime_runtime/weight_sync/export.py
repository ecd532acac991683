"""Conversion between Hugging Face tensors and Megatron's fused, sharded parameters.

A layout describes one rank's shard as an ordered list of slices of full tensors. ``load`` concatenates them
along dimension 0, ``export`` puts the same slices back: one description for both directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from vime_runtime.spec.model_families import ParamMapping
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.weight_sync.buckets import LocalShard
from vime_runtime.weight_sync.tensor_slice import Shape, TensorSlice

if TYPE_CHECKING:
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.trainer.parallel import ParallelGroups


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


def split(
    mapping: ParamMapping, tensors: dict[str, Shape], shape: ModelShape, rank: Rank
) -> Iterator[tuple[str, int, int, int]]:
    """Yield (tensor, dim, start, stop) of each slice of a rank's shard, in the order of the shard's rows.

    In the layout ``whole`` every rank has the whole tensor. In ``rows`` a rank has its rows of the first
    tensor first. In ``qkv`` the query groups are split over the ranks; in a group the query heads come first,
    then key and value, as in ``SelfAttention.get_query_key_value_tensors`` of Megatron-core.
    """
    if mapping.layout == "qkv":
        query, *key_and_value = mapping.hf
        group_rows = shape.query_size // shape.num_key_value_heads
        for group in range(*rank.share(shape.num_key_value_heads)):
            yield query, 0, group * group_rows, (group + 1) * group_rows
            for name in key_and_value:
                yield name, 0, group * shape.head_dim, (group + 1) * shape.head_dim
        return
    dim = 1 if mapping.layout == "columns" else 0
    for name in mapping.hf:
        extent = tensors[name][dim]
        yield name, dim, *((0, extent) if mapping.layout == "whole" else rank.share(extent))


class WeightBridge:
    """Convert the weights of one model between Megatron's shards and Hugging Face tensors."""

    def __init__(self, checkpoint: HFCheckpoint, groups: ParallelGroups) -> None:
        """Describe the shards of this rank of ``groups``, of a model with the shape of ``checkpoint``."""
        self._checkpoint = checkpoint
        self._shape = checkpoint.shape
        self._tensors = checkpoint.tensors
        self._group = groups.tensor
        self._rank = Rank(groups.tensor.rank(), groups.tensor.size())
        self._expert_group = groups.expert
        self._expert_rank = Rank(groups.expert.rank(), groups.expert.size())

    @torch.no_grad()
    def load(self, model: torch.nn.Module) -> None:
        """Fill this rank's parameters from the checkpoint, reading only its own slices from disk.

        Rows beyond the true vocabulary are zero. Parameters that are split over ranks are marked. Megatron
        does so only when it initializes them. The norm of the gradient depends on the mark: parameters that
        all ranks have count once.

        Raises:
            RuntimeError: the parameters of the model are not those that the family names.
        """
        for mapping, shard in self._shards(model):
            if shard is not None:
                shard.tensor_model_parallel = mapping.layout != "whole"  # type: ignore[attr-defined]
                for part in self._split(mapping, self._rank_of(mapping), shard.zero_()):
                    stop = part.start + part.view.shape[part.dim]
                    part.view.copy_(self._checkpoint.read(part.name, part.dim, part.start, stop))

    @torch.no_grad()
    def export(self, model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield every Hugging Face tensor, full, in the parameters' dtype and on their device.

        A collective over the tensor-parallel and the expert-parallel group: every rank must exhaust the
        iterator. A yielded tensor may share storage with a parameter; copy it before changing it.
        """
        like = next(model.parameters())
        for mapping, shard in self._shards(model):
            if mapping.layout == "whole":
                assert shard is not None  # only experts are on other ranks
                yield from ((name, shard.detach()) for name in mapping.hf)
                continue
            full = {name: like.new_empty(self._tensors[name]) for name in mapping.hf}
            shards = [] if shard is None else [shard]
            own = self._rank_of(mapping)
            if own.size > 1:
                assert shard is not None
                shards = [torch.empty_like(shard) for _ in range(own.size)]
                dist.all_gather(shards, shard, group=self._group)
            for index, one in enumerate(shards):
                for part in self._split(mapping, Rank(index, own.size), one):
                    part.write(full[part.name])
            if (owner := self._owner(mapping)) is not None:
                for tensor in full.values():
                    dist.broadcast(tensor, group=self._expert_group, group_src=owner)
            yield from full.items()

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
            parts: list[TensorSlice] = []
            replicated = mapping.layout == "whole" and self._rank.index > 0
            distributed = self._owner(mapping) is not None
            if shard is not None and (distributed or (first_replica and not replicated)):
                parts += self._split(mapping, self._rank_of(mapping), shard)
            for name in mapping.hf:
                own = tuple(part for part in parts if part.name == name)
                yield name, LocalShard(self._tensors[name], dtype, own)

    def _owner(self, mapping: ParamMapping) -> int | None:
        """Return the expert-parallel rank that has a whole expert; None if it is sharded like the rest."""
        if mapping.expert is None or self._expert_rank.size == 1:
            return None
        return mapping.expert // (self._shape.num_experts // self._expert_rank.size)

    def _rank_of(self, mapping: ParamMapping) -> Rank:
        """Return the rank by which this rank's shard of a parameter is split."""
        return self._rank if self._owner(mapping) is None else UNSHARDED

    def _split(self, mapping: ParamMapping, rank: Rank, shard: Tensor) -> Iterator[TensorSlice]:
        """Yield each slice of ``rank``'s shard."""
        offset = 0
        for name, dim, start, stop in split(mapping, self._tensors, self._shape, rank):
            view = shard  # [rows, stop - start]
            if dim == 0:
                view = shard.narrow(0, offset, stop - start)  # [stop - start, ...]
                offset += stop - start
            yield TensorSlice(name, self._tensors[name], dim, start, view)

    def _shards(self, model: torch.nn.Module) -> Iterator[tuple[ParamMapping, Tensor | None]]:
        """Yield every parameter of the whole model with this rank's shard; None for other ranks' experts."""
        here = self._shape.local_experts(self._expert_rank.index, self._expert_rank.size)
        parameters = dict(model.named_parameters())
        named = [
            (mapping, mapping.parameter(here)) for mapping in self._checkpoint.family.parameters(self._shape)
        ]
        expected = {name for _, name in named if name is not None}
        if parameters.keys() != expected:
            raise RuntimeError(f"parameters without a mapping: {sorted(parameters.keys() ^ expected)}")
        for mapping, name in named:
            yield mapping, None if name is None else parameters[name]
