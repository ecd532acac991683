"""The slices of one rank's packed vLLM parameters that each Hugging Face tensor fills.

As in vLLM's loaders, they are derived from attributes of the modules: what is split, over how many ranks, and
the index of this rank. The attributes are the same in vLLM 0.20 to 0.32 and in vllm-ascend's subclasses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from vime_runtime.weight_sync.tensor_slice import Shape, TensorSlice

# A packed module and the Hugging Face modules whose rows it holds, in this order.
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
# The parameters of a module of experts.
EXPERT_WEIGHTS = ("w13_weight", "w2_weight")
# The segment that vLLM 0.30 puts between the experts and their weights.
EXPERTS_SEGMENT = ".routed_experts"
# Rows of a parameter that no tensor fills have this instead of a tensor's name. They are zero.
PADDING = ""


def find_slices(model: torch.nn.Module) -> Iterator[tuple[str, TensorSlice]]:
    """Yield the name of every parameter of ``model`` with each of its slices.

    Experts of other ranks have none here. A parameter that two modules share, as tied embeddings and head do,
    belongs to the first one.

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
                for part in _slices(name, parameter.detach(), module):
                    yield name, part


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


def _own_parameters(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    # vllm-ascend keeps a copy of a router's weight in fp32, on some releases not as a parameter.
    copy = getattr(module, "weight_fp32", None)
    if copy is not None and "weight_fp32" not in module._parameters:
        yield "weight_fp32", copy


def _slices(name: str, parameter: torch.Tensor, module: Any) -> Iterator[TensorSlice]:
    if _has_experts(module):
        yield from _experts(name, parameter, module)
        return
    if isinstance(module, VocabParallelEmbedding):
        yield from _vocabulary(name, parameter, module)
        return
    dim, parts = _parts(name, parameter, module)
    extents = [shape[dim] // ranks for _, shape, _, ranks in parts]
    first = parts[0][1]
    _check_shape(name, parameter, (*first[:dim], sum(extents), *first[dim + 1 :]))
    offset = 0
    for (tensor, shape, rank, _), extent in zip(parts, extents, strict=True):
        yield TensorSlice(tensor, shape, dim, rank * extent, parameter.narrow(dim, offset, extent))
        offset += extent


def _parts(name: str, parameter: torch.Tensor, module: Any) -> tuple[int, list[tuple[str, Shape, int, int]]]:
    """Describe a weight [rows, columns] or a bias [rows].

    Returns:
        the dimension along which the tensors are packed and split over ranks, and (tensor, full shape, rank,
        ranks) of each, in the order of the parameter.
    """
    path, _, key = name.rpartition(".")
    parent, _, own = path.rpartition(".")
    if isinstance(module, RowParallelLinear):
        full = module.output_size, module.input_size
        if key == "bias":  # every rank has all of it
            return 0, [(name, full[:1], 0, 1)]
        return 1, [(name, full, module.tp_rank, module.tp_size)]
    if not isinstance(module, ColumnParallelLinear):  # every rank has the whole tensor
        return 0, [(name.removesuffix("_fp32"), tuple(parameter.shape), 0, 1)]
    if isinstance(module, QKVParallelLinear):
        heads, kv_heads = module.total_num_heads, module.total_num_kv_heads
        sizes = [heads * module.head_size, kv_heads * module.head_size, kv_heads * module.v_head_size]
        # With fewer KV heads than ranks, adjacent ranks share a replicated head.
        replicas = [1, module.num_kv_head_replicas, module.num_kv_head_replicas]
    else:
        # Those of a MergedColumnParallelLinear.
        sizes = getattr(module, "output_sizes", [module.output_size])
        replicas = [1] * len(sizes)
    packed = PACKED.get(own, (own,))
    if len(packed) != len(sizes):
        raise ValueError(f"{path} is packed of {len(sizes)} tensors; known are {', '.join(PACKED)}")
    columns = () if key == "bias" else (module.input_size,)
    prefix = f"{parent}." if parent else ""
    return 0, [
        (f"{prefix}{hf}.{key}", (rows, *columns), module.tp_rank // copies, module.tp_size // copies)
        for hf, rows, copies in zip(packed, sizes, replicas, strict=True)
    ]


def _vocabulary(name: str, parameter: torch.Tensor, module: Any) -> Iterator[TensorSlice]:
    """Split the rows of the padded vocabulary over the ranks; the padding comes last."""
    own = module.shard_indices
    rows = own.org_vocab_end_index - own.org_vocab_start_index
    if own.added_vocab_end_index > own.added_vocab_start_index:
        raise ValueError(f"{name} has rows for added tokens, which no tensor of a checkpoint fills")
    columns = () if name.endswith(".bias") else (module.embedding_dim,)
    _check_shape(name, parameter, (module.num_embeddings_per_partition, *columns))
    yield TensorSlice(name, (module.org_vocab_size, *columns), 0, own.org_vocab_start_index, parameter[:rows])
    yield TensorSlice(PADDING, (), 0, 0, parameter[rows:])


def _experts(name: str, parameter: torch.Tensor, module: Any) -> Iterator[TensorSlice]:
    """Place whole experts on each rank, or its rows of every expert: gate and up in w13, down in w2."""
    path, _, key = name.rpartition(".")
    if key not in EXPERT_WEIGHTS:
        raise ValueError(f"{name} is not known among the parameters of experts: {', '.join(EXPERT_WEIGHTS)}")
    transposed = _transposed(path, module)
    rank, rows = module.moe_config.tp_rank, module.moe_config.intermediate_size_per_partition
    for expert, local in _local_experts(module).items():
        for tensor, (packed, index), shape in _projections(path, module, expert):
            if packed == key:
                dim = 1 if key == "w2_weight" else 0
                own = parameter[local].t() if transposed else parameter[local]
                # w13: [2 * rows, hidden], w2: [hidden, rows]
                yield TensorSlice(tensor, shape, dim, rank * rows, own.narrow(dim, index * rows, rows))


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
