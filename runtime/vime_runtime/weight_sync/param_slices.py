"""Where each Hugging Face tensor goes in a vLLM model: rows of one rank's packed parameters.

Read off the modules themselves, as their own loaders do: what is split, over how many ranks, and which
of them this one is. The attributes are the same in vLLM 0.20 to 0.32 and in vllm-ascend's subclasses.
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

# A packed module and the Hugging Face modules whose rows lie in it, in this order.
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}

# Of a bias [rows]; a weight is [rows, columns].
BIAS = ".bias"

# The segment that vLLM 0.30 puts between the experts and their weights.
EXPERTS_SEGMENT = ".routed_experts"


@dataclass(frozen=True)
class Place:
    """Rows of one parameter, and the part of one Hugging Face tensor that belongs there.

    Attributes:
        parameter: its name in the model, for errors.
        target: the parameter's own memory, a view of it: [rows, ...], or [..., rows] where it is
            ``turned``; what is written here is in the model.
        tensor: the Hugging Face name; None for padding, which is zero.
        shape: of the full tensor.
        dim, start: the part: as many as ``target`` takes along ``dim`` of the full tensor, from ``start``.
        turned: the parameter has the two last dimensions the other way round.
    """

    parameter: str
    target: torch.Tensor
    tensor: str | None
    shape: Shape = ()
    dim: int = 0
    start: int = 0
    turned: bool = False

    @torch.no_grad()
    def write(self, tensor: torch.Tensor | None, first: int = 0) -> None:
        """Copy what belongs here; zeros where there is no tensor.

        ``tensor`` has the full tensor's rows from ``first`` on, as many as it has.
        """
        if tensor is None:
            self.target.zero_()
            return
        target = self.target.transpose(-1, -2) if self.turned else self.target
        if self.dim == 0:
            begin, end = max(self.start, first), min(self.start + len(target), first + len(tensor))
            if begin < end:
                target[begin - self.start : end - self.start].copy_(tensor[begin - first : end - first])
        else:
            rows = target[first : first + len(tensor)]
            rows.copy_(tensor.narrow(self.dim, self.start, target.shape[self.dim]))


def places(model: torch.nn.Module) -> Iterator[Place]:
    """Every place of every parameter of ``model``; an expert of another rank has none here.

    A parameter that two modules share, as embeddings and head do when they are tied, is the first one's.

    Raises:
        ValueError: a parameter has not the shape that its module's numbers make, say because it was
            packed after loading.
    """
    seen = set()
    for path, module in model.named_modules():
        for key, parameter in _own_parameters(module):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                name = f"{path}.{key}" if path else key
                yield from _rule(module)(path, key, name, parameter, module)


def elsewhere(model: torch.nn.Module) -> dict[str, Shape]:
    """Name and full shape of the tensors of experts that other ranks have."""
    found = {}
    for path, module in model.named_modules():
        if _has_experts(module):
            here = _local_experts(module)
            for expert in range(module.moe_config.num_logical_experts):
                if expert not in here:
                    found |= {name: shape for name, _, shape in _projections(path, module, expert)}
    return found


Rule = Callable[[str, str, str, torch.Tensor, Any], Iterator[Place]]


def _rule(module: torch.nn.Module) -> Rule:
    if _has_experts(module):
        return _experts
    # The most special class first: some are subclasses of others.
    for kind, rule in (
        (QKVParallelLinear, _qkv),
        (MergedColumnParallelLinear, _merged),
        (ColumnParallelLinear, _column),
        (RowParallelLinear, _row),
        (VocabParallelEmbedding, _vocabulary),
    ):
        if isinstance(module, kind):
            return rule
    return _whole


def _own_parameters(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    # vllm-ascend keeps a copy of a router's weight in fp32, on some releases not as a parameter.
    copy = getattr(module, "weight_fp32", None)
    if copy is not None and "weight_fp32" not in module._parameters:
        yield "weight_fp32", copy


def _whole(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[Place]:
    """Every rank holds the whole tensor, which has the parameter's shape."""
    tensor = name.removesuffix("_fp32")
    yield Place(name, parameter, tensor, tuple(parameter.shape))


def _column(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[Place]:
    """Each rank holds its rows."""
    yield from _rows(name, parameter, module, [(name, module.output_size, module.tp_rank, module.tp_size)])


def _merged(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[Place]:
    """Each rank holds its rows of the first tensor, then of the second."""
    parts = [(size, module.tp_rank, module.tp_size) for size in module.output_sizes]
    yield from _packed(path, key, name, parameter, module, parts)


def _qkv(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[Place]:
    """Each rank holds its query heads, then its key and value heads.

    Of fewer key/value heads than ranks, neighbouring ranks hold the same one.
    """
    replicas = module.num_kv_head_replicas
    keys = module.tp_rank // replicas, module.tp_size // replicas
    parts = [
        (module.total_num_heads * module.head_size, module.tp_rank, module.tp_size),
        (module.total_num_kv_heads * module.head_size, *keys),
        (module.total_num_kv_heads * module.v_head_size, *keys),
    ]
    yield from _packed(path, key, name, parameter, module, parts)


def _packed(
    path: str, key: str, name: str, parameter: torch.Tensor, module: Any, parts: list[tuple[int, int, int]]
) -> Iterator[Place]:
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
) -> Iterator[Place]:
    """Places of a weight [rows, columns] or a bias [rows]; a part is (tensor, rows in all, rank, ranks)."""
    rest = () if name.endswith(BIAS) else (module.input_size,)
    extents = [rows // ranks for _, rows, _, ranks in parts]
    _check(name, parameter, (sum(extents), *rest))
    at = 0
    for (tensor, rows, rank, _), extent in zip(parts, extents, strict=True):
        yield Place(name, parameter.narrow(0, at, extent), tensor, (rows, *rest), 0, rank * extent)
        at += extent


def _row(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[Place]:
    """Each rank holds its columns, and all of the bias."""
    if name.endswith(BIAS):
        _check(name, parameter, (module.output_size,))
        yield from _whole(path, key, name, parameter, module)
        return
    columns = module.input_size // module.tp_size
    _check(name, parameter, (module.output_size, columns))
    full = (module.output_size, module.input_size)
    yield Place(name, parameter, name, full, 1, module.tp_rank * columns)


def _vocabulary(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[Place]:
    """Each rank holds its rows of the padded vocabulary, the padding at the end of them."""
    own = module.shard_indices
    rows = own.org_vocab_end_index - own.org_vocab_start_index
    if own.added_vocab_end_index > own.added_vocab_start_index:
        raise ValueError(f"{name} has rows for added tokens, which no tensor of a checkpoint fills")
    rest = () if name.endswith(BIAS) else (module.embedding_dim,)
    _check(name, parameter, (module.num_embeddings_per_partition, *rest))
    full = (module.org_vocab_size, *rest)
    yield Place(name, parameter.narrow(0, 0, rows), name, full, 0, own.org_vocab_start_index)
    yield Place(name, parameter.narrow(0, rows, len(parameter) - rows), None)


def _experts(path: str, key: str, name: str, parameter: torch.Tensor, module: Any) -> Iterator[Place]:
    """Each rank holds its experts whole, or its rows of all of them: gate and up in w13, down in w2."""
    if key not in ("w13_weight", "w2_weight"):
        raise ValueError(f"{name} is not known among the parameters of experts: w13_weight, w2_weight")
    turned = _turned(path, module)
    rank, rows = module.moe_config.tp_rank, module.moe_config.intermediate_size_per_partition
    for expert, local in _local_experts(module).items():
        for tensor, where, shape in _projections(path, module, expert):
            if not key.startswith(where[0]):
                continue
            at = where[1] * rows
            dim = 1 if where[0] == "w2" else 0  # of the full tensor; in memory the other when turned
            target = parameter[local].narrow(1 - dim if turned else dim, at, rows)
            yield Place(name, target, tensor, shape, dim, rank * rows, turned)


def restore_expert_parameters(model: torch.nn.Module) -> None:
    """Make the experts' parameters again what vllm-ascend computes with: contiguous [experts, in, out].

    It transposes them after loading. Up to 0.23 its worker transposes them back when it wakes, as views, for
    loaders whose result it processes again. Weights written through the views are already in place; only the
    parameters have to be replaced. Parameters made by vllm-ascend also lack the ``weight_loader`` that vLLM's
    ``load_weights`` calls. No update here calls it, but without it vLLM cannot reload the model from disk.
    """
    for module in filter(_has_experts, model.modules()):
        for name in ("w13_weight", "w2_weight"):
            weight = getattr(module, name)
            if not weight.is_contiguous() and weight.transpose(1, 2).is_contiguous():
                restored = torch.nn.Parameter(weight.detach().transpose(1, 2), requires_grad=False)
                vars(restored).update(vars(weight))
                setattr(module, name, weight := restored)
            if not hasattr(weight, "weight_loader"):
                weight.weight_loader = module.weight_loader


def _has_experts(module: torch.nn.Module) -> bool:
    return hasattr(module, "moe_config") and hasattr(module, "w13_weight")


def _local_experts(module: Any) -> dict[int, int]:
    """The experts of this rank by their number in the checkpoint: where they are in its parameters."""
    placed = module._expert_map
    if placed is None:
        return {expert: expert for expert in range(module.moe_config.num_logical_experts)}
    return {expert: local for expert, local in enumerate(placed.tolist()) if local >= 0}


def _projections(path: str, module: Any, expert: int) -> Iterator[tuple[str, tuple[str, int], Shape]]:
    """Of each tensor of an expert: its name, (parameter, which of its parts) and its full shape."""
    hidden = module.moe_config.hidden_dim
    rows = module.moe_config.intermediate_size_per_partition * module.moe_config.tp_size
    prefix = f"{path.removesuffix(EXPERTS_SEGMENT)}.{expert}"
    yield f"{prefix}.gate_proj.weight", ("w13", 0), (rows, hidden)
    yield f"{prefix}.up_proj.weight", ("w13", 1), (rows, hidden)
    yield f"{prefix}.down_proj.weight", ("w2", 0), (hidden, rows)


def _turned(path: str, module: Any) -> bool:
    """Whether the experts' weights are as vllm-ascend turns them after loading, [experts, in, out].

    The two parameters together tell: w13 and w2 cannot both be square.
    """
    count, hidden = module.local_num_experts, module.moe_config.hidden_dim
    rows = module.moe_config.intermediate_size_per_partition
    found = tuple(module.w13_weight.shape), tuple(module.w2_weight.shape)
    plain = (count, 2 * rows, hidden), (count, hidden, rows)
    turned = (count, hidden, 2 * rows), (count, rows, hidden)
    if found not in (plain, turned):
        raise ValueError(
            f"{path}: w13_weight and w2_weight are {list(found[0])} and {list(found[1])}, "
            f"expected {list(plain[0])} and {list(plain[1])}, or both turned"
        )
    return found == turned


def _check(name: str, parameter: torch.Tensor, expected: Shape) -> None:
    if tuple(parameter.shape) != expected:
        raise ValueError(
            f"parameter {name} of the engine is {list(parameter.shape)}, expected {list(expected)}: "
            "weights cannot be written into it directly"
        )
