"""The slices of one rank's packed vLLM parameters that each Hugging Face tensor fills.

As in vLLM's loaders, they are derived from attributes of the modules: what is split, over how many ranks, and
the index of this rank. The attributes are the same in vLLM 0.20 to 0.32 and in vllm-ascend's subclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

Shape = tuple[int, ...]

# A packed module and the Hugging Face modules whose rows it holds, in this order.
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
# The parameters of a module of experts.
EXPERT_WEIGHTS = ("w13_weight", "w2_weight")
# The segment that vLLM 0.30 puts between the experts and their weights.
EXPERTS_SEGMENT = ".routed_experts"
BIAS = ".bias"  # a bias is [rows], a weight [rows, columns]


@dataclass(frozen=True)
class ParamSlice:
    """A slice of one parameter, and the part of one Hugging Face tensor that fills it.

    Attributes:
        parameter: its name in the model, for errors.
        target: a view of the parameter: [rows, ...], or [..., rows] where it is ``transposed``.
        tensor: the Hugging Face name; None for padding, which is zero.
        shape: of the full tensor.
        dim, start: the part of the full tensor: along ``dim`` from ``start``, as long as ``target``.
        transposed: the last two dimensions of the parameter are swapped.
    """

    parameter: str
    target: torch.Tensor
    tensor: str | None
    shape: Shape = ()
    dim: int = 0
    start: int = 0
    transposed: bool = False

    @torch.no_grad()
    def write(self, tensor: torch.Tensor | None, first: int = 0) -> None:
        """Copy the part of ``tensor`` that belongs here; zeros if it is None.

        Args:
            tensor: some rows of the full tensor, from ``first`` on.
        """
        if tensor is None:
            self.target.zero_()
            return
        target = self.target.transpose(-1, -2) if self.transposed else self.target
        if self.dim == 0:
            begin, end = max(self.start, first), min(self.start + len(target), first + len(tensor))
            if begin < end:
                target[begin - self.start : end - self.start].copy_(tensor[begin - first : end - first])
        else:
            rows = target[first : first + len(tensor)]
            rows.copy_(tensor.narrow(self.dim, self.start, target.shape[self.dim]))


def find_slices(model: torch.nn.Module) -> Iterator[ParamSlice]:
    """Yield every slice of every parameter of ``model``; experts of other ranks have none here.

    A parameter that two modules share, as tied embeddings and head do, belongs to the first one.

    Raises:
        ValueError: the shape of a parameter does not follow from its module's sizes, for example because it
            was packed after loading.
    """
    seen = set()
    for path, module in model.named_modules():
        for key, parameter in _own_parameters(module):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                name = f"{path}.{key}" if path else key
                yield from _slicer(module)(path, key, name, parameter, module)


def remote_expert_shapes(model: torch.nn.Module) -> dict[str, Shape]:
    """Return name and full shape of the tensors of experts that are on other ranks."""
    found: dict[str, Shape] = {}
    for path, module in model.named_modules():
        if _has_experts(module):
            here = _local_experts(module)
            for expert in range(module.moe_config.num_logical_experts):
                if expert not in here:
                    found |= {name: shape for name, _, shape in _projections(path, module, expert)}
    return found


def restore_expert_parameters(model: torch.nn.Module) -> None:
    """Restore the experts' parameters that vllm-ascend computes with: contiguous [experts, in, out].

    vllm-ascend transposes them after loading. Up to 0.23 its worker transposes them back when it wakes, as
    views, for loaders whose result it processes again. Weights written through the views are already in
    place; only the parameters have to be replaced. Parameters made by vllm-ascend also lack the
    ``weight_loader`` that vLLM's ``load_weights`` calls. No update here calls it, but without it vLLM cannot
    reload the model from disk.
    """
    for module in filter(_has_experts, model.modules()):
        for name in EXPERT_WEIGHTS:
            weight: Any = getattr(module, name)
            if not weight.is_contiguous() and weight.transpose(1, 2).is_contiguous():
                restored = torch.nn.Parameter(weight.detach().transpose(1, 2), requires_grad=False)
                vars(restored).update(vars(weight))
                setattr(module, name, weight := restored)
            if not hasattr(weight, "weight_loader"):
                weight.weight_loader = module.weight_loader


Slicer = Callable[[str, str, str, torch.Tensor, Any], Iterator[ParamSlice]]


def _slicer(module: torch.nn.Module) -> Slicer:
    if _has_experts(module):
        return _experts
    # Subclasses come before their base classes.
    for kind, slicer in (
        (QKVParallelLinear, _qkv),
        (MergedColumnParallelLinear, _merged),
        (ColumnParallelLinear, _column),
        (RowParallelLinear, _row),
        (VocabParallelEmbedding, _vocabulary),
    ):
        if isinstance(module, kind):
            return slicer
    return _whole


def _own_parameters(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    # vllm-ascend keeps a copy of a router's weight in fp32, on some releases not as a parameter.
    copy = getattr(module, "weight_fp32", None)
    if copy is not None and "weight_fp32" not in module._parameters:
        yield "weight_fp32", copy


def _whole(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[ParamSlice]:
    """Fill the parameter with the whole tensor on every rank."""
    yield ParamSlice(name, parameter, name.removesuffix("_fp32"), tuple(parameter.shape))


def _column(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[ParamSlice]:
    """Split the rows over the ranks."""
    yield from _rows(name, parameter, module, [(name, module.output_size, module.tp_rank, module.tp_size)])


def _merged(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[ParamSlice]:
    """Split the rows of each packed tensor over the ranks."""
    parts = [(size, module.tp_rank, module.tp_size) for size in module.output_sizes]
    yield from _packed(path, key, name, parameter, module, parts)


def _qkv(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[ParamSlice]:
    """Split the query heads over the ranks, then the key and the value heads.

    With fewer KV heads than ranks, adjacent ranks share a replicated head.
    """
    replicas = module.num_kv_head_replicas
    kv_rank = module.tp_rank // replicas, module.tp_size // replicas
    parts = [
        (module.total_num_heads * module.head_size, module.tp_rank, module.tp_size),
        (module.total_num_kv_heads * module.head_size, *kv_rank),
        (module.total_num_kv_heads * module.v_head_size, *kv_rank),
    ]
    yield from _packed(path, key, name, parameter, module, parts)


def _packed(
    path: str, key: str, name: str, parameter: torch.Tensor, module: Any, parts: list[tuple[int, int, int]]
) -> Iterator[ParamSlice]:
    parent, _, own = path.rpartition(".")
    if len(PACKED.get(own, ())) != len(parts):
        raise ValueError(f"{path} is packed of {len(parts)} tensors; known are {', '.join(PACKED)}")
    named = [
        (f"{parent}.{hf}.{key}" if parent else f"{hf}.{key}", *part)
        for hf, part in zip(PACKED[own], parts, strict=True)
    ]
    yield from _rows(name, parameter, module, named)


def _rows(
    name: str, parameter: torch.Tensor, module: Any, parts: list[tuple[str, int, int, int]]
) -> Iterator[ParamSlice]:
    """Yield slices of a weight [rows, columns] or a bias [rows].

    Args:
        parts: (tensor, rows of the full tensor, rank, ranks) in the order of the parameter's rows.
    """
    rest = () if name.endswith(BIAS) else (module.input_size,)
    extents = [rows // ranks for _, rows, _, ranks in parts]
    _check_shape(name, parameter, (sum(extents), *rest))
    offset = 0
    for (tensor, rows, rank, _), extent in zip(parts, extents, strict=True):
        target = parameter.narrow(0, offset, extent)  # [extent, columns] or [extent]
        yield ParamSlice(name, target, tensor, (rows, *rest), 0, rank * extent)
        offset += extent


def _row(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[ParamSlice]:
    """Split the columns over the ranks; every rank has the whole bias."""
    if name.endswith(BIAS):
        _check_shape(name, parameter, (module.output_size,))
        yield from _whole(path, key, name, parameter, module)
        return
    columns = module.input_size // module.tp_size
    _check_shape(name, parameter, (module.output_size, columns))
    full = (module.output_size, module.input_size)
    yield ParamSlice(name, parameter, name, full, 1, module.tp_rank * columns)


def _vocabulary(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[ParamSlice]:
    """Split the rows of the padded vocabulary over the ranks; the padding comes last."""
    own = module.shard_indices
    rows = own.org_vocab_end_index - own.org_vocab_start_index
    if own.added_vocab_end_index > own.added_vocab_start_index:
        raise ValueError(f"{name} has rows for added tokens, which no tensor of a checkpoint fills")
    rest = () if name.endswith(BIAS) else (module.embedding_dim,)
    _check_shape(name, parameter, (module.num_embeddings_per_partition, *rest))
    full = (module.org_vocab_size, *rest)
    yield ParamSlice(name, parameter.narrow(0, 0, rows), name, full, 0, own.org_vocab_start_index)
    yield ParamSlice(name, parameter.narrow(0, rows, len(parameter) - rows), None)


def _experts(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[ParamSlice]:
    """Place whole experts on each rank, or its rows of every expert: gate and up in w13, down in w2."""
    if key not in EXPERT_WEIGHTS:
        raise ValueError(f"{name} is not known among the parameters of experts: {', '.join(EXPERT_WEIGHTS)}")
    transposed = _transposed(path, module)
    rank, rows = module.moe_config.tp_rank, module.moe_config.intermediate_size_per_partition
    for expert, local in _local_experts(module).items():
        for tensor, (packed, index), shape in _projections(path, module, expert):
            if packed == key:
                dim = 1 if key == "w2_weight" else 0  # of the full tensor; in memory the other if transposed
                # w13: [2 * rows, hidden], w2: [hidden, rows]
                target = parameter[local].narrow(1 - dim if transposed else dim, index * rows, rows)
                yield ParamSlice(name, target, tensor, shape, dim, rank * rows, transposed)


def _has_experts(module: torch.nn.Module) -> bool:
    return hasattr(module, "moe_config") and hasattr(module, "w13_weight")


def _local_experts(module: Any) -> dict[int, int]:
    """Return the experts of this rank: index in the checkpoint to index in its parameters."""
    expert_map = module._expert_map
    if expert_map is None:
        return {expert: expert for expert in range(module.moe_config.num_logical_experts)}
    return {expert: local for expert, local in enumerate(expert_map.tolist()) if local >= 0}


def _projections(path: str, module: Any, expert: int) -> Iterator[tuple[str, tuple[str, int], Shape]]:
    """Yield name, (parameter, index among its parts) and full shape of each tensor of an expert."""
    hidden = module.moe_config.hidden_dim
    rows = module.moe_config.intermediate_size_per_partition * module.moe_config.tp_size
    prefix = f"{path.removesuffix(EXPERTS_SEGMENT)}.{expert}"
    yield f"{prefix}.gate_proj.weight", ("w13_weight", 0), (rows, hidden)
    yield f"{prefix}.up_proj.weight", ("w13_weight", 1), (rows, hidden)
    yield f"{prefix}.down_proj.weight", ("w2_weight", 0), (hidden, rows)


def _transposed(path: str, module: Any) -> bool:
    """Return True if vllm-ascend has transposed the experts' weights, to [experts, in, out].

    Both parameters are compared: at most one of them can be square. Raises ValueError for any other shape.
    """
    count, hidden = module.local_num_experts, module.moe_config.hidden_dim
    rows = module.moe_config.intermediate_size_per_partition
    found = tuple(module.w13_weight.shape), tuple(module.w2_weight.shape)
    plain = (count, 2 * rows, hidden), (count, hidden, rows)
    transposed = (count, hidden, 2 * rows), (count, rows, hidden)
    if found not in (plain, transposed):
        raise ValueError(
            f"{path}: w13_weight and w2_weight are {list(found[0])} and {list(found[1])}, "
            f"expected {list(plain[0])} and {list(plain[1])}, or both transposed"
        )
    return found == transposed


def _check_shape(name: str, parameter: torch.Tensor, expected: Shape) -> None:
    if tuple(parameter.shape) != expected:
        raise ValueError(
            f"parameter {name} of the engine is {list(parameter.shape)}, expected {list(expected)}: "
            "weights cannot be written into it directly"
        )
