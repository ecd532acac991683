"""Our calls of the NPU's attention operator, against Megatron's own attention and the one of the CPU path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import torch
from vime_runtime.batch import RolloutBatch
from vime_runtime.trainer import fusion_attention, packing

from harness.npu import fusion_operator
from harness.npu.fusion_operator import npu_fusion_attention

# The rank processes do not have the path of the tests' own modules.
cloudpickle.register_pickle_by_value(fusion_operator)

HEAD_DIM = 16
CONFIG = SimpleNamespace(kv_channels=HEAD_DIM, attention_dropout=0.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """A torch_npu that has the operator; what it is called with."""
    noted = []

    def operator(*args: Any, **named: Any) -> Any:
        noted.append((args, named))
        return npu_fusion_attention(*args, **named)

    module = ModuleType("torch_npu")
    module.npu_fusion_attention = operator
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    return noted


def inputs(*shape: int, heads: int, groups: int) -> list[torch.Tensor]:
    """Query, key and value of [..., heads, dim]."""
    generator = torch.Generator().manual_seed(sum(shape) + heads)
    return [
        torch.randn(*shape, count, HEAD_DIM, generator=generator, requires_grad=True)
        for count in (heads, groups, groups)
    ]


def gradients(output: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return list(torch.autograd.grad((output * weights).sum(), tensors))


def packed(shapes: list[tuple[int, list[int]]]) -> packing.PackedSequences:
    """The sequences of a pack: a prompt and the lengths of its responses each."""
    batch, groups = RolloutBatch.empty(), []
    for number, (prompt, responses) in enumerate(sorted(shapes)):
        groups.append(list(range(len(batch), len(batch) + len(responses))))
        for length in responses:
            batch.append([number] * prompt, [number] * length, [0.0] * length, 0.0, number)
    return packing.build(batch, groups, [0.0] * len(batch), torch.device("cpu")).sequences


SHAPES = {
    "prompts-alone": [(3, [1]), (5, [1])],
    "one-group": [(4, [6, 6, 2, 1])],
    "several": [(1, [2]), (7, [3, 9, 3, 3]), (7, [9, 2]), (12, [5, 5, 1])],
}
HEADS = [(4, 4), (4, 2), (8, 1)]


@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize("name", SHAPES)
def test_npu_attention_of_a_packed_row_is_that_of_the_cpu_path(calls, name, heads, groups):
    from vime_runtime.trainer.attention import PackedAttention

    sequences = packed(SHAPES[name])
    tensors = inputs(int(sequences.cu_seqlens_q[-1]), heads=heads, groups=groups)
    ours = fusion_attention.FusionAttention(CONFIG)(*tensors, None, packed_seq_params=sequences)
    # The class of the CPU path only keeps its config.
    theirs = PackedAttention.forward(None, *tensors, None, packed_seq_params=sequences)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for own, other in zip(gradients(ours, tensors), gradients(theirs, tensors), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    (args, named), = calls  # fmt: skip
    assert args[4] == "TND"
    assert named["keep_prob"] == 1.0


def against_megatron(
    rank: int, world_size: int, master: str, heads: int, groups: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What ours and Megatron's own attention give: the output and the gradients, for a causal batch and for
    every sequence of a packed row by itself."""
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.transformer_config import TransformerConfig
    from vime_runtime.trainer import parallel

    module = ModuleType("torch_npu")
    module.npu_fusion_attention = npu_fusion_attention
    sys.modules["torch_npu"] = module
    parallel.start("gloo", rank, world_size, master, 1)
    try:
        config = TransformerConfig(
            num_layers=1, hidden_size=heads * HEAD_DIM, num_attention_heads=heads, num_query_groups=groups,
            kv_channels=HEAD_DIM, attention_dropout=0.0, masked_softmax_fusion=False,
        )  # fmt: skip
        own = fusion_attention.FusionAttention(config, layer_number=1)
        megatrons = DotProductAttention(config, 1, AttnMaskType.causal, "self")

        def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            length, width = query.shape[0], key.shape[0]
            mask = torch.ones(length, width, dtype=torch.bool).triu(1 + width - length)
            return megatrons(query, key, value, mask[None, None])

        pairs = []
        tensors = inputs(11, 3, heads=heads, groups=groups)
        ours, theirs = own(*tensors, None), reference(*tensors)
        pairs += [(ours, theirs), *zip(gradients(ours, tensors), gradients(theirs, tensors), strict=True)]

        sequences = packed(SHAPES["several"])
        tensors = inputs(int(sequences.cu_seqlens_q[-1]), heads=heads, groups=groups)
        ours = own(*tensors, None, packed_seq_params=sequences)
        query, key, value = tensors
        parts, start = [], 0
        for count, length in sequences.prompts:
            for _ in range(count):
                rows = slice(start, start + length)
                parts.append(reference(query[rows, None], key[rows, None], value[rows, None]))
                start += length
        for run in sequences.branches:
            for attended in run.attended:
                rows = slice(start, start + run.length)
                parts.append(reference(query[rows, None], key[attended, None], value[attended, None]))
                start += run.length
        theirs = torch.cat(parts).view(ours.shape)
        pairs += [(ours, theirs), *zip(gradients(ours, tensors), gradients(theirs, tensors), strict=True)]
        return [(one.detach(), other.detach()) for one, other in pairs]
    finally:
        parallel.stop()
        del sys.modules["torch_npu"]


@pytest.mark.parametrize(("heads", "groups"), HEADS)
def test_npu_attention_is_megatrons_own_for_causal_batches_and_packed_rows(ranks, heads, groups):
    pairs = ranks.run(against_megatron, 1, heads, groups)[0]
    assert len(pairs) == 8
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_npu_attention_takes_rows_of_more_sequences_than_the_operator_does(calls):
    sequences = packed([(1, [2] * 3) for _ in range(600)])
    tensors = inputs(int(sequences.cu_seqlens_q[-1]), heads=2, groups=1)
    output = fusion_attention.FusionAttention(CONFIG)(*tensors, None, packed_seq_params=sequences)
    assert [len(named["actual_seq_qlen"]) for _, named in calls] == [1024, 1024, 352]
    # A prompt of one token attends to itself alone.
    assert torch.equal(output[:600], tensors[2][:600].expand(-1, 2, -1))


def test_npu_attention_has_no_dropout():
    with pytest.raises(ValueError, match=r"attention_dropout is 0\.1"):
        fusion_attention.FusionAttention(SimpleNamespace(kv_channels=HEAD_DIM, attention_dropout=0.1))
