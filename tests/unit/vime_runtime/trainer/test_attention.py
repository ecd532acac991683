"""FusionAttention, with an operator written from its documentation, against the other two attentions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.distributed import FileStore
from vime_runtime.batch import RolloutBatch
from vime_runtime.trainer import packing
from vime_runtime.trainer.attention import FusionAttention, PackedAttention

from harness import TESTS
from harness.npu.fusion_operator import npu_fusion_attention
from harness.tolerances import of_sum

HEAD_DIM = 16
# Sums over at most 30 keys. The gradient of a key is a sum over as many queries of 8 heads.
FORWARD = of_sum(torch.float32, HEAD_DIM + 30)
BACKWARD = of_sum(torch.float32, 2 * (HEAD_DIM + 30) + 8 * 30)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Install a torch_npu with the operator; yield the arguments of its calls."""
    recorded = []

    def operator(*args: Any, **named: Any) -> Any:
        recorded.append((args, named))
        return npu_fusion_attention(*args, **named)

    module = ModuleType("torch_npu")
    module.npu_fusion_attention = operator
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    return recorded


def inputs(tokens: int, *, heads: int, groups: int) -> list[torch.Tensor]:
    """Return query, key and value [tokens, heads, head_dim]."""
    generator = torch.Generator().manual_seed(tokens + heads)
    return [
        torch.randn(tokens, count, HEAD_DIM, generator=generator, requires_grad=True)
        for count in (heads, groups, groups)
    ]


def pairs(
    output: torch.Tensor, expected: torch.Tensor, tensors: list[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pair two outputs and their gradients."""
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    gradients = [torch.autograd.grad((one * weights).sum(), tensors) for one in (output, expected)]
    return [(output.detach(), expected.detach()), *zip(*gradients, strict=True)]


def packed(shapes: list[tuple[int, list[int]]]) -> packing.PackedSequences:
    """Pack prompts of these lengths, each with responses of these lengths."""
    batch, groups = RolloutBatch(), []
    for number, (prompt, responses) in enumerate(sorted(shapes)):
        groups.append(list(range(len(batch), len(batch) + len(responses))))
        for length in responses:
            batch.append([number] * prompt, [number] * length, [0.0] * length, 0.0, number)
    return packing.pack(batch, groups, [0.0] * len(batch), torch.device("cpu")).sequences


SHAPES = {
    "prompts-alone": [(3, [1]), (5, [1])],
    "one-group": [(4, [6, 6, 2, 1])],
    "several": [(1, [2]), (7, [3, 9, 3, 3]), (7, [9, 2]), (12, [5, 5, 1])],
}
HEADS = [(4, 4), (4, 2), (8, 1)]


@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize("name", SHAPES)
def test_fusion_attention_equals_packed_attention(calls, name, heads, groups):
    sequences = packed(SHAPES[name])
    tensors = inputs(int(sequences.cu_seqlens_q[-1]), heads=heads, groups=groups)
    output = FusionAttention(None)(*tensors, None, packed_seq_params=sequences)
    expected = PackedAttention(None)(*tensors, None, packed_seq_params=sequences)
    torch.testing.assert_close(output, expected, **FORWARD)
    for own, other in pairs(output, expected, tensors):
        torch.testing.assert_close(own, other, **BACKWARD)
    (args, named), = calls  # fmt: skip
    assert args[4] == "TND"
    assert named["keep_prob"] == 1.0


def against_megatron(
    rank: int, world_size: int, store: str, heads: int, groups: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return output and gradients of FusionAttention for a packed row, each with that of Megatron's own.

    Megatron's gets every sequence by itself.
    """
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.transformer_config import TransformerConfig
    from vime_runtime.trainer import parallel

    if str(TESTS) not in sys.path:  # of the rank's process
        sys.path.append(str(TESTS))
    from harness.npu import fusion_operator

    sys.modules["torch_npu"] = fusion_operator
    parallel.start("gloo", rank, world_size, FileStore(store, world_size), 1)
    try:
        config = TransformerConfig(
            num_layers=1, hidden_size=heads * HEAD_DIM, num_attention_heads=heads, num_query_groups=groups,
            kv_channels=HEAD_DIM, attention_dropout=0.0, masked_softmax_fusion=False,
        )  # fmt: skip
        megatrons_attention = DotProductAttention(config, 1, AttnMaskType.causal, "self")

        def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            length, width = query.shape[0], key.shape[0]
            mask = torch.ones(length, width, dtype=torch.bool).triu(1 + width - length)
            return megatrons_attention(query, key, value, mask[None, None])

        sequences = packed(SHAPES["several"])
        tensors = inputs(int(sequences.cu_seqlens_q[-1]), heads=heads, groups=groups)
        output = FusionAttention(config, layer_number=1)(*tensors, None, packed_seq_params=sequences)
        query, key, value = tensors
        parts, start = [], 0
        for count, length in sequences.prompt_runs:
            for _ in range(count):
                rows = slice(start, start + length)
                parts.append(reference(query[rows, None], key[rows, None], value[rows, None]))
                start += length
        for run in sequences.response_runs:
            for key_rows in run.key_rows:
                rows = slice(start, start + run.length)
                parts.append(reference(query[rows, None], key[key_rows, None], value[key_rows, None]))
                start += run.length
        return pairs(output, torch.cat(parts).view(output.shape), tensors)
    finally:
        parallel.stop()
        del sys.modules["torch_npu"]


@pytest.mark.parametrize(("heads", "groups"), HEADS)
def test_fusion_attention_equals_megatrons_attention(ranks, heads, groups):
    for output, expected in ranks.run(against_megatron, 1, heads, groups)[0]:
        torch.testing.assert_close(output, expected, **BACKWARD)


def test_rows_with_too_many_sequences_for_the_operator_are_split(calls):
    sequences = packed([(1, [2] * 3) for _ in range(600)])
    tensors = inputs(int(sequences.cu_seqlens_q[-1]), heads=2, groups=1)
    output = FusionAttention(None)(*tensors, None, packed_seq_params=sequences)
    assert [len(named["actual_seq_qlen"]) for _, named in calls] == [1024, 1024, 352]
    # A prompt of one token attends only to itself.
    assert torch.equal(output[:600], tensors[2][:600].expand(-1, 2, -1))
