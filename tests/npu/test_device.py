"""The simulated NPU itself: what a test concludes from it is worth what it does right."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.npu.simulated_machine import COLOCATED, SimulatedMachine
from harness.runtime.rank_processes import Process, on_each
from harness.tolerances import of_sum

MIB = 1 << 20
LEARNING_RATE, ADAM_EPS = 0.1, 1e-2


def compute(device: str) -> dict[str, Any]:
    """A little of everything that a trainer does, and the outcome."""
    if device == "npu":
        import torch_npu  # noqa: F401

    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8).to(device)
    table = torch.randn(16, 8).to(device).requires_grad_()
    # A large eps: with the default one, a gradient of 0 plus a rounding error would become a whole step.
    optimizer = torch.optim.AdamW([*layer.parameters(), table], lr=LEARNING_RATE, eps=ADAM_EPS)
    rows = torch.tensor([3, 1, 3], device=device)
    for _ in range(2):
        hidden = torch.nn.functional.embedding(rows, table)
        heads = layer(hidden).view(1, 3, 2, 4).transpose(1, 2)
        attended = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        loss = attended.transpose(1, 2).flatten(2).log_softmax(-1)[0, :, 0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    part = table.detach()[2:5, 1:3]
    part[part > 0] = 7
    out = torch.empty(3, 2, device=device)
    torch.add(part, 1, out=out)
    out.t_()
    joined = torch.cat([out.t(), part])
    tensors = {"loss": loss, "weight": layer.weight, "table": table, "out": out, "joined": joined}
    where = {name: tensor.device.type for name, tensor in tensors.items()}
    return {"where": where, "values": {name: tensor.detach().cpu() for name, tensor in tensors.items()}}


def test_results_are_those_of_the_cpu(pair: list[Process]) -> None:
    npu, cpu = (process.run(compute, device) for process, device in zip(pair, ("npu", "cpu"), strict=True))
    assert set(npu["where"].values()) == {"npu"}
    # The host's attention is one fused kernel, the device's is several. Sums of 8 products, in two layers and
    # their gradients; AdamW passes an error of a gradient on to the weight, lr / eps times as large.
    tolerance = of_sum(torch.float32, 4 * 8 * int(LEARNING_RATE / ADAM_EPS))
    for name, value in cpu["values"].items():
        torch.testing.assert_close(npu["values"][name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def hold(nbytes: int) -> tuple[int, int, int]:
    """Hold so much; free bytes of the chip before, while and after."""
    import torch_npu  # noqa: F401

    torch.npu.empty_cache()
    before = torch.npu.mem_get_info()[0]
    held = torch.empty(nbytes, dtype=torch.uint8, device="npu")
    view = held[10:].view(-1)
    del held
    during = torch.npu.mem_get_info()[0]
    del view
    torch.npu.empty_cache()
    return before, during, torch.npu.mem_get_info()[0]


def test_memory_is_counted_by_chip_and_freed_with_the_last_view(pair: list[Process]) -> None:
    before, during, after = pair[0].run(hold, 10 * MIB)
    assert before - during == 10 * MIB
    assert after == before


def hold_for_good(nbytes: int) -> None:
    import torch_npu

    torch_npu.held = torch.empty(nbytes, dtype=torch.uint8, device="npu")


def allocate(nbytes: int) -> str:
    """Return the allocator's message for this number of bytes."""
    import torch_npu  # noqa: F401

    try:
        torch.empty(nbytes, dtype=torch.uint8, device="npu")
    except torch.OutOfMemoryError as e:
        return str(e)
    return ""


def test_memory_of_a_process_is_free_after_its_death(machine: SimulatedMachine, tmp_path: Path) -> None:
    used = machine.used(1)
    hog, other = (machine.start(tmp_path, "1") for _ in range(2))
    hog.run(hold_for_good, 40 * MIB)
    assert machine.used(1) == used + 40 * MIB
    assert "NPU out of memory. Tried to allocate" in other.run(allocate, 40 * MIB)
    hog.popen.send_signal(signal.SIGKILL)
    hog.popen.wait()
    assert other.run(allocate, 40 * MIB) == ""
    other.close()


def export(value: int) -> bytes:
    import pickle

    import torch_npu
    from torch.multiprocessing.reductions import reduce_tensor

    torch_npu.exported = torch.full((1000,), value, dtype=torch.int32, device="npu")[100:]
    return pickle.dumps(reduce_tensor(torch_npu.exported))


def write_to(handle: bytes, logical: int) -> Any:
    """Add one to the first number of another process's tensor; what it was, or the error."""
    import pickle

    import torch_npu  # noqa: F401

    rebuild, arguments = pickle.loads(handle)
    before = torch.npu.memory_allocated()
    try:
        tensor = rebuild(*arguments[:6], logical, *arguments[7:])
    except RuntimeError as e:
        return str(e)
    assert torch.npu.memory_allocated() == before
    tensor[0] += 1
    return tensor.shape[0], tensor[0].item() - 1, tensor[-1].item()


def exported() -> list[int]:
    import torch_npu

    return torch_npu.exported[:2].tolist()


def test_handle_maps_memory_of_another_process_on_the_same_chip(
    machine: SimulatedMachine, pair: list[Process]
) -> None:
    before = len(machine.calls())
    handle = pair[0].run(export, 41)
    assert pair[1].run(write_to, handle, 1) == (900, 41, 41)
    assert pair[0].run(exported) == [42, 41]
    export_call, open_call = machine.calls()[before:]  # in order across processes
    owner = pair[0].popen.pid
    assert [export_call[key] for key in ("name", "pid", "chip")] == ["ipc_export", owner, 1]
    assert [open_call[key] for key in ("name", "owner", "chip")] == ["ipc_open", owner, 1]
    assert "memory of chip 1 cannot be mapped on chip 0" in pair[1].run(write_to, handle, 0)


def test_a_handle_is_invalid_after_its_owner_has_exited(
    machine: SimulatedMachine, pair: list[Process], tmp_path: Path
) -> None:
    owner = machine.start(tmp_path, "1")
    handle = owner.run(export, 1)
    owner.close()
    assert "the memory's owner has exited" in pair[1].run(write_to, handle, 1)


def reduce_over(rank: int, world_size: int, master: str) -> Any:
    """Sums and gathers over the ranks through HCCL."""
    import torch.distributed as dist
    import torch_npu  # noqa: F401

    dist.init_process_group("hccl", init_method=f"tcp://{master}", rank=rank, world_size=world_size)
    try:
        values = torch.full((4,), rank + 1.0, device="npu")
        dist.all_reduce(values)
        everything = torch.empty(8, device="npu")
        dist.all_gather_into_tensor(everything, values * (rank + 1))
        objects = [None, None]
        dist.all_gather_object(objects, f"rank {rank}")
        return values.tolist(), everything.tolist(), objects
    finally:
        dist.destroy_process_group()


def test_collectives_work_on_device_memory(machine: SimulatedMachine, pair: list[Process]) -> None:
    expected = [3.0] * 4, [3.0] * 4 + [6.0] * 4, ["rank 0", "rank 1"]
    assert on_each(pair, reduce_over) == [expected, expected]
    assert {call["op"] for call in machine.calls("hccl")} >= {"allreduce", "_allgather_base"}


def pause_region() -> dict[str, Any]:
    """A region of the memory saver through pause and resume."""
    import torch_npu  # noqa: F401
    from torch_memory_saver import torch_memory_saver as saver

    saver.hook_mode = "torch"
    outside = torch.ones(MIB, dtype=torch.uint8, device="npu")
    with saver.region(tag="a", enable_cpu_backup=True):
        kept = torch.full((MIB,), 3, dtype=torch.uint8, device="npu")
    free = torch.npu.mem_get_info()[0]
    saver.pause("a")
    seen: dict[str, Any] = {"released": torch.npu.mem_get_info()[0] - free, "outside": outside.sum().item()}
    for name, call in {"touched": kept.sum, "emptied": torch.npu.empty_cache}.items():
        try:
            call()
        except RuntimeError as e:
            seen[name] = str(e)
    address = kept.data_ptr()
    saver.resume("a")
    return seen | {"kept": kept.sum().item(), "moved": kept.data_ptr() - address}


def test_offloaded_region_is_unmapped_and_empty_cache_is_unsafe(pair: list[Process]) -> None:
    seen = pair[0].run(pause_region)
    assert seen["released"] == MIB
    assert seen["outside"] == MIB
    assert "is not mapped" in seen["touched"]
    assert "pluggable allocator" in seen["emptied"]
    assert (seen["kept"], seen["moved"]) == (3 * MIB, 0)


def use_saver(mode: str) -> str:
    import torch_npu  # noqa: F401
    from torch_memory_saver import torch_memory_saver as saver

    saver.hook_mode = mode
    try:
        with saver.region():
            return ""
    except RuntimeError as e:
        return str(e)


@pytest.mark.parametrize(
    ("mode", "configuration", "error"),
    [
        ("preload", COLOCATED["PYTORCH_NPU_ALLOC_CONF"], "hooks nothing"),
        ("torch", "", "expandable segments"),
    ],
)
def test_memory_saver_refuses_what_the_real_one_refuses(
    machine: SimulatedMachine, tmp_path: Path, mode: str, configuration: str, error: str
) -> None:
    process = machine.start(tmp_path, "0", PYTORCH_NPU_ALLOC_CONF=configuration)
    assert error in process.run(use_saver, mode)
    process.close()


def call_unknown() -> str:
    import torch_npu
    from torch_npu.contrib import transfer_to_npu  # noqa: F401

    try:
        torch_npu.npu_grouped_matmul([], [])
    except NotImplementedError as e:
        return str(e)
    return ""


def test_unsimulated_functions_raise_when_called(pair: list[Process]) -> None:
    assert pair[0].run(call_unknown) == "torch_npu.npu_grouped_matmul is not simulated"


def test_product_code_does_not_name_the_simulation() -> None:
    root = Path(__file__).parents[2]
    found = [
        str(path.relative_to(root))
        for folder in ("vimectl", "runtime", "patches", "recipes", "docker")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
        if re.search(rb"simulated.?(npu|ascend|machine)", path.read_bytes().lower())
    ]
    assert found == []
