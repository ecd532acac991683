"""Operators of the released torch_npu, which ``packages/npu_operators`` computes, against the CPU's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.npu.machine import Machine
from harness.runtime.rank_processes import Process
from harness.tolerances import of_rounding, of_sum

MIB = 1 << 20
LEARNING_RATE, ADAM_EPS = 0.1, 1e-2
FP32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Start a process that sees two chips."""
    folder = tmp_path_factory.mktemp("operators")
    process = Machine(folder / "npus", chips=2).start(folder, "0,1")
    yield process
    process.close()


def on_both(process: Process, function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Run a function in the process for its device and for the CPU."""
    return process.run(function, "npu", *args), process.run(function, "cpu", *args)


def train(device: str) -> dict[str, Any]:
    """Take two steps of a little of everything that a trainer does."""
    import torch_npu

    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8).to(device)
    table = torch.randn(16, 8).to(device).requires_grad_()
    # A large eps: with the default one, a gradient of 0 plus a rounding error would become a whole step.
    optimizer = torch.optim.AdamW([*layer.parameters(), table], lr=LEARNING_RATE, eps=ADAM_EPS)
    rows = torch.tensor([3, 1, 3], device=device)
    mask = torch.ones(2048, 2048, dtype=torch.bool, device=device).triu(1)
    for _ in range(2):
        hidden = torch.nn.functional.embedding(rows, table)
        heads = layer(hidden).view(3, 2, 4)
        if device == "npu":
            attended = torch_npu.npu_fusion_attention(
                heads, heads, heads, 2, "TND", atten_mask=mask, scale=0.5,
                actual_seq_qlen=[3], actual_seq_kvlen=[3], sparse_mode=3,
            )[0]  # fmt: skip
        else:
            batch = heads.transpose(0, 1)
            attended = torch.nn.functional.scaled_dot_product_attention(batch, batch, batch, is_causal=True)
            attended = attended.transpose(0, 1)
        loss = attended.flatten(1).log_softmax(-1)[:, 0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"loss": loss.item(), "weight": layer.weight.detach().cpu(), "table": table.detach().cpu()}


def test_training_agrees_with_the_cpu(process: Process) -> None:
    npu, cpu = on_both(process, train)
    # Sums of 8 products, in two layers and their gradients; AdamW passes an error of a gradient on to the
    # weight, lr / eps times as large.
    torch.testing.assert_close(npu, cpu, **of_sum(FP32, 4 * 8 * int(LEARNING_RATE / ADAM_EPS)))


def write_through_views(device: str) -> list[Tensor]:
    """Write through views of all kinds; return what is behind them."""
    base = torch.arange(24.0, device=device).view(2, 3, 4)
    base[1:].transpose(1, 2)[0, 1] += 100
    base[0][base[0] > 5] = -1
    base.view(-1)[::5].mul_(2)
    first, second = base.flatten().chunk(2)
    assert first.untyped_storage().data_ptr() == base.untyped_storage().data_ptr()
    second.copy_(first)
    pairs = torch.view_as_complex(base[:, :2].reshape(2, 2, 2, 2))
    torch.view_as_real(pairs).neg_()
    bits = base[0, 0].view(torch.int32)
    bits.bitwise_xor_(1 << 31)
    transposed = base[0].clone().t_()
    transposed.squeeze_().unsqueeze_(0)
    return [base.cpu(), torch.view_as_real(pairs).cpu(), bits.cpu(), transposed.cpu()]


def test_views_share_memory_of_the_device(process: Process) -> None:
    for npu, cpu in zip(*on_both(process, write_through_views), strict=True):
        assert torch.equal(npu, cpu)


def write_to_outputs(device: str) -> list[Tensor]:
    """Let operators write to outputs that are too small, too large, strided and lists."""
    ones = torch.ones(3, device=device)
    grown = torch.empty(0, device=device)
    assert torch.add(ones, 1, out=grown) is grown
    shrunk = torch.empty(10, device=device)
    torch.add(ones, 2, out=shrunk)
    joined = torch.empty(2, device=device)
    torch.cat([ones, ones], out=joined)
    table = torch.zeros(3, 4, device=device)
    torch.mul(ones, 5, out=table[:, 1])
    values, indices = torch.empty(0, device=device), torch.empty(0, dtype=torch.long, device=device)
    torch.topk(torch.arange(5.0, device=device), 2, out=(values, indices))
    return [tensor.cpu() for tensor in (grown, shrunk, joined, table, values, indices)]


def test_outputs_are_resized_and_written(process: Process) -> None:
    for npu, cpu in zip(*on_both(process, write_to_outputs), strict=True):
        assert torch.equal(npu, cpu)


def copy() -> dict[str, bool]:
    """Copy in every direction; return what arrived as it was sent."""
    source = torch.arange(24, dtype=FP32).view(4, 6)
    device = source.to("npu")
    gaps = torch.zeros(6, 8, device="npu")[:, :4]
    gaps.t().copy_(source)
    cast = torch.empty(4, 6, dtype=BF16, device="npu").copy_(device)
    pinned = torch.empty(4, 6).pin_memory()
    pinned.copy_(device, non_blocking=True)
    torch.npu.synchronize()
    other = device.t().to("npu:1")
    rows = torch.empty(4, 6, device="npu").copy_(device[0])
    return {
        "to device": torch.equal(device.cpu(), source),
        "to gaps": torch.equal(gaps.cpu(), source.t()),
        "between dtypes": torch.equal(cast.float().cpu(), source),
        "to device between dtypes": torch.equal(source.to("npu", BF16).cpu(), source.bfloat16()),
        "from a view": torch.equal(device[1:, ::2].cpu(), source[1:, ::2]),
        "to pinned memory": torch.equal(pinned, source),
        "broadcast": torch.equal(rows.cpu(), source[:1].expand(4, 6)),
        "to another device": other.get_device() == 1 and torch.equal(other.cpu(), source.t()),
        "clone keeps strides": device.t().clone().stride() == (1, 6),
    }  # fmt: skip


def test_copies_in_every_direction(process: Process) -> None:
    assert {name for name, right in process.run(copy).items() if not right} == set()


def draw() -> dict[str, bool]:
    """Draw with seeds, states and generators; return what is as it should be."""
    host = torch.get_rng_state()

    def numbers(**named: Any) -> Tensor:
        drawn = torch.randn(100, device="npu", **named), torch.randperm(100, device="npu", **named)
        return torch.cat(drawn).cpu()

    torch.npu.manual_seed(7)
    state = torch.npu.get_rng_state()
    first = numbers()
    torch.npu.set_rng_state(state)
    again, later = numbers(), numbers()
    own = torch.Generator("npu").manual_seed(7)
    ones = torch.ones(1000, device="npu", requires_grad=True)
    dropped = torch.nn.functional.dropout(ones, 0.25)
    dropped.sum().backward()
    in_a_row = [torch.rand(4, device="npu:1").cpu() for _ in range(2)]
    torch.npu.manual_seed_all(7)
    fresh = [torch.rand(4, device=device).cpu() for device in ("npu", "npu:1")]
    return {
        "state restored": torch.equal(first, again),
        "state advanced": not torch.equal(again, later),
        "own generator": torch.equal(numbers(generator=own), first),
        "own generator advanced": not torch.equal(numbers(generator=own), first),
        "dropout": 650 < (dropped > 0).sum().item() < 850,
        "dropout's gradient": torch.equal(ones.grad, dropped),
        "generator of each device": torch.equal(*fresh),
        "other device advanced": not torch.equal(*in_a_row),
        "generator of the CPU untouched": torch.equal(host, torch.get_rng_state()),
    }


def test_random_numbers_are_those_of_the_generator_state(process: Process) -> None:
    assert {name for name, right in process.run(draw).items() if not right} == set()


def optimize(device: str, options: dict[str, bool]) -> list[Tensor]:
    torch.manual_seed(0)
    weights = [torch.randn(5, 3).to(device).requires_grad_() for _ in range(3)]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, eps=ADAM_EPS, **options)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn(5, 3).to(device)
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
    return [weight.detach().cpu() for weight in weights]


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}], ids=["foreach", "fused"])
def test_adamw_agrees_with_the_cpu(process: Process, options: dict[str, bool]) -> None:
    npu, cpu = on_both(process, optimize, options)
    # Three steps of a dozen roundings each, and the norm of 45 gradients.
    torch.testing.assert_close(npu, cpu, **of_sum(FP32, 3 * 12 + 45))


def accumulate(device: str) -> list[Tensor]:
    """Add gradients of rows that occur several times, in bf16."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([1, 3, 1, 1, 0], device=device)
    table = torch.randn(4, 8, generator=generator).to(device, BF16).requires_grad_()
    grad = torch.randn(5, 8, generator=generator).to(device, BF16)
    torch.nn.functional.embedding(rows, table).backward(grad)
    embedding, table.grad = table.grad, None
    table[rows].backward(grad)
    put = torch.zeros(4, 8, dtype=BF16, device=device).index_put_((rows,), grad, accumulate=True)
    return [tensor.float().cpu() for tensor in (embedding, table.grad, put)]


def test_duplicate_rows_add_up_in_bf16(process: Process) -> None:
    for npu, cpu in zip(*on_both(process, accumulate), strict=True):
        torch.testing.assert_close(npu, cpu, **of_sum(BF16, 3, magnitude=4))


def differentiate(device: str, name: str, dtype: torch.dtype) -> list[Tensor]:
    """Return the output and the gradients of an operator of torch_npu, or of the CPU's formula for it."""
    import torch_npu
    from torch.nn.functional import rms_norm, silu

    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    repeats = torch.tensor([2, 0, 3, 1], device=device)
    index = torch.tensor([[0, 3], [1, 1]], device=device)
    shapes, own, formula = {
        "rms_norm": (
            [(2, 3, 8), (8,)],
            lambda x, w: torch_npu.npu_rms_norm(x, w, epsilon=1e-5)[0],
            lambda x, w: rms_norm(x, (8,), w, 1e-5),
        ),
        "swiglu": (
            [(3, 8)],
            torch_npu.npu_swiglu,
            lambda x: silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
        ),
        "rotary_mul": ([(5, 2, 8), (5, 1, 8), (5, 1, 8)], torch_npu.npu_rotary_mul, rotate),
        "cast": ([(3, 8)], lambda x: x.to(BF16), lambda x: x.to(BF16)),
        "matmul": ([(2, 3, 8), (8, 4)], torch.matmul, torch.matmul),
        "matmul of batches": ([(2, 1, 3, 8), (4, 8, 2)], torch.matmul, torch.matmul),
        "matmul of vectors": ([(8,), (8,)], torch.matmul, torch.matmul),
        "linear": ([(2, 3, 8), (4, 8), (4,)], torch.nn.functional.linear, torch.nn.functional.linear),
        "repeat_interleave": (
            [(3, 4)],
            lambda x: x.repeat_interleave(3, 0),
            lambda x: x.repeat_interleave(3, 0),
        ),
        "repeat_interleave each": (
            [(3, 4)],
            lambda x: x.repeat_interleave(repeats, 1),
            lambda x: x.repeat_interleave(repeats, 1),
        ),
        "gather": ([(2, 4)], lambda x: x.gather(1, index), lambda x: x.gather(1, index)),
    }[name]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    # The CPU computes in fp32 what it gets in bf16: the values that the device computes, rounded once.
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    inputs = [x.to(device, dtype if device == "npu" else FP32).requires_grad_() for x in inputs]
    output = (own if device == "npu" else formula)(*inputs)
    weights = torch.linspace(-1, 1, output.numel()).to(dtype).view(output.shape).to(device, output.dtype)
    gradients = torch.autograd.grad(output, inputs, weights)
    assert [x.dtype for x in gradients] == [x.dtype for x in inputs]
    return [tensor.detach().float().cpu() for tensor in (output, *gradients)]


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "name",
    [
        "rms_norm", "swiglu", "rotary_mul", "cast", "matmul", "matmul of batches", "matmul of vectors",
        "linear", "repeat_interleave", "repeat_interleave each", "gather",
    ],
)  # fmt: skip
def test_gradients_are_those_of_the_formula(process: Process, name: str, dtype: torch.dtype) -> None:
    npu, cpu = on_both(process, differentiate, name, dtype)
    for own, other in zip(npu, cpu, strict=True):
        # Sums of up to 24 terms in fp32, and one rounding to the dtype; a cast rounds to bf16 in any case.
        tolerance = of_sum(FP32, 2 * 24, magnitude=4)
        rounding = of_rounding(BF16 if name == "cast" else dtype)
        tolerance = {"rtol": tolerance["rtol"] + rounding["rtol"], "atol": tolerance["atol"]}
        torch.testing.assert_close(own, other, **tolerance)


def attend(device: str, heads: int, groups: int) -> list[Tensor]:
    """Return output and gradients of attention over two sequences, the second after a prefix of 3 keys."""
    import torch_npu

    q_ends, k_ends = [4, 6], [4, 9]
    generator = torch.Generator().manual_seed(0)
    shapes = (6, heads, 16), (9, groups, 16), (9, groups, 16)
    q, k, v = (torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes)
    if device == "npu":
        mask = torch.ones(2048, 2048, dtype=torch.bool, device=device).triu(1)
        output, *_ = torch_npu.npu_fusion_attention(
            q, k, v, heads, "TND", atten_mask=mask, scale=0.25, sparse_mode=3,
            actual_seq_qlen=q_ends, actual_seq_kvlen=k_ends,
        )  # fmt: skip
    else:
        parts = []
        for first, last, left, right in ((0, 4, 0, 4), (4, 6, 4, 9)):
            causal = torch.ones(last - first, right - left, dtype=torch.bool).tril(
                right - left - last + first
            )
            part = (q[first:last], k[left:right], v[left:right])
            attended = torch.nn.functional.scaled_dot_product_attention(
                *(tensor.transpose(0, 1) for tensor in part), attn_mask=causal, scale=0.25, enable_gqa=True
            )
            parts.append(attended.transpose(0, 1))
        output = torch.cat(parts)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape).to(device)
    gradients = torch.autograd.grad(output, (q, k, v), weights)
    return [tensor.detach().cpu() for tensor in (output, *gradients)]


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 1)])
def test_fusion_attention_is_causal_attention_of_each_sequence(
    process: Process, heads: int, groups: int
) -> None:
    for npu, cpu in zip(*on_both(process, attend, heads, groups), strict=True):
        # Sums over 16 dimensions and 5 keys, and over queries and heads for a key.
        torch.testing.assert_close(npu, cpu, **of_sum(FP32, 2 * (16 + 5) + 6 * heads))


def allocate() -> dict[str, int]:
    """Return how many bytes operators of a tensor of 64 MiB allocate, during and after the call."""
    import torch_npu  # noqa: F401

    size = 64 * MIB
    big = torch.ones(size // 4, device="npu")
    found = {}
    for name, call in {
        "in place": lambda: big.add_(1),
        "to itself": lambda: torch.mul(big, 2, out=big),
        "view": lambda: big.view(4, -1).t()[3:].mul_(2),
        "copy to itself": lambda: big[: size // 8].copy_(big[size // 8 :]),
        "foreach": lambda: torch._foreach_mul_([big], 2.0),
        "reduce": lambda: big.amax().item(),
        "result": lambda: big + 1,
    }.items():
        torch.npu.reset_peak_memory_stats()
        before = torch.npu.memory_allocated()
        result = call()
        during = torch.npu.max_memory_allocated() - before
        del result
        found[name] = during // size
        found[name + ", after"] = torch.npu.memory_allocated() - before
    return found


def test_memory_is_neither_copied_nor_leaked(process: Process) -> None:
    found = process.run(allocate)
    assert {name for name, times in found.items() if times} == {"result"}
    assert found["result"] == 1


def refuse() -> dict[str, str]:
    """Return the messages of what the device refuses."""
    import torch_npu

    x = torch.ones(3, device="npu")
    messages = {}
    for name, call in {
        "unknown": lambda: torch_npu.npu_mish(x),
        "unknown of aten": lambda: torch.batch_norm_stats(x.view(1, 3), 1e-5),
        "format": lambda: torch_npu.npu_format_cast(x.view(1, 3), 29),
        "host": lambda: x + torch.ones(3),
        "devices": lambda: torch.cat([x, x.to("npu:1")]),
    }.items():
        try:
            call()
        except (RuntimeError, NotImplementedError) as e:
            messages[name] = str(e).splitlines()[0]
    return messages


def test_what_has_no_stand_in_is_named(process: Process) -> None:
    different = "Expected all tensors to be on the same device, but found at least two devices, npu:0 and "
    messages = process.run(refuse)
    assert messages["unknown"] == "npu::npu_mish has no stand-in"
    assert messages["unknown of aten"] == "aten::batch_norm_stats has no stand-in"
    assert messages["format"] == "npu::_npu_format_cast has no stand-in for the format 29"
    assert messages["host"].startswith(different + "cpu")
    assert messages["devices"].startswith(different + "npu:1")


def cast_to_double() -> torch.dtype:
    return torch.ones(3, device="npu").double().dtype


def test_a_cast_to_double_is_one_to_float(process: Process) -> None:
    assert process.run(cast_to_double) == FP32
