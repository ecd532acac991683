"""Offload a chip's memory with torch_memory_saver under the released torch_npu, and let each step fail."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest

from harness.npu.machine import Machine

MIB = 1 << 20
CHIP = 1024 * MIB
# torch_npu allocates so many bytes more for each tensor (torch_npu/csrc/core/npu/NPUCachingAllocator.cpp).
PADDING = 32
# acl/error_codes/rt_error_codes.h
OUT_OF_MEMORY, INTERNAL_ERROR = 207001, 507000
LINE = "[torch_memory_saver.cpp] "
RAISED = 3


class Ended(NamedTuple):
    """A process that has exited: its code, what it printed, what the function returned."""

    code: int
    output: str
    result: Any


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "npus", chips=1, chip_bytes=CHIP)


@pytest.fixture(scope="module")
def run(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ended]]:
    """Run ``function(saver, machine, *args)`` in a new process, which has imported torch_npu."""
    parent = machine.start(tmp_path_factory.mktemp("parent"), "0")
    yield lambda function, *args: parent.run(in_child, function, machine, *args)
    parent.close()


def in_child(function: Callable[..., Any], machine: Machine, *args: Any) -> Ended:
    from torch_memory_saver import torch_memory_saver as saver

    saver.hook_mode = "torch"
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as result:
        pid = os.fork()
        if not pid:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = 0
            try:
                result.write(pickle.dumps(function(saver, machine, *args)))
                result.flush()
            except BaseException:
                traceback.print_exc()
                code = RAISED
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (output, result):
            file.seek(0)
        return Ended(code, output.read().decode(), pickle.loads(result.read() or pickle.dumps(None)))


def ones(mib: int) -> Any:
    """Return bytes of 1 that take so many MiB."""
    import torch

    return torch.ones(mib * MIB - PADDING, dtype=torch.uint8, device="npu")


def held(machine: Machine, kind: str = "physical") -> float:
    """Return the MiB that this process holds."""
    return machine.holders(0).get((os.getpid(), kind), 0) / MIB


def offload(saver: Any, machine: Machine) -> list[Any]:
    with saver.region(tag="a", enable_cpu_backup=True):
        tensor = ones(30)
    seen = [held(machine)]
    saver.pause("a")
    seen.append(held(machine))
    address = tensor.data_ptr()
    saver.resume("a")
    return [*seen, held(machine), tensor.data_ptr() == address, (tensor == 1).all().item()]


def test_pause_frees_physical_memory_and_resume_restores_it_in_place(run: Callable[..., Ended]) -> None:
    assert run(offload).result == [30, 0, 30, True, True]


def offload_one_tag(saver: Any, machine: Machine) -> list[Any]:
    with saver.region(tag="a", enable_cpu_backup=True):
        one = ones(30)
    with saver.region(tag="b", enable_cpu_backup=False):
        other = ones(40)
    saver.pause("b")
    seen = [held(machine), (one == 1).all().item()]
    saver.resume("b")
    return [*seen, held(machine), (other == 1).all().item()]


def test_pause_concerns_one_tag_and_without_backup_the_contents_are_lost(run: Callable[..., Ended]) -> None:
    assert run(offload_one_tag).result == [30, True, 70, False]


def free_temporaries(saver: Any, machine: Machine) -> list[Any]:
    import torch

    with saver.region(tag="a", enable_cpu_backup=True):
        kept, temporary = ones(50), ones(300)
        del temporary
    torch.npu.empty_cache()
    mapped = held(machine)
    seen = len(machine.events("aclrtMemcpy"))
    saver.pause("a")
    copied = [event["nbytes"] / MIB for event in machine.events("aclrtMemcpy")[seen:]]
    return [mapped, kept.nbytes < 50 * MIB, sorted(copied)]


def test_temporaries_freed_in_a_region_stay_mapped_and_are_backed_up(run: Callable[..., Ended]) -> None:
    assert run(free_temporaries).result == [350, True, [50, 300]]


def allocate_freed_memory_under_another_tag(saver: Any, machine: Machine) -> list[Any]:
    with saver.region(tag="a", enable_cpu_backup=True):
        ones(30)
    with saver.region(tag="b", enable_cpu_backup=True):
        tensor = ones(30)
    saver.pause("b")
    return [held(machine), (tensor == 1).all().item()]


def test_memory_freed_in_a_region_keeps_its_tag(run: Callable[..., Ended]) -> None:
    assert run(allocate_freed_memory_under_another_tag).result == [30, True]


def empty_the_cache(saver: Any, machine: Machine, inside: bool) -> list[Any]:
    import torch

    with saver.region(tag="a", enable_cpu_backup=True):
        tensor, temporary = ones(30), ones(40)
        del temporary
    ones(100)
    saver.pause("a")
    seen = [held(machine, "malloc")]
    with saver.region(tag="a", enable_cpu_backup=True) if inside else nullcontext():
        torch.npu.empty_cache()
    seen += [held(machine, "malloc"), held(machine)]
    saver.resume("a")
    return [*seen, held(machine), (tensor == 1).all().item()]


def test_empty_cache_returns_what_is_outside_the_region_and_leaves_the_region(
    run: Callable[..., Ended],
) -> None:
    assert run(empty_the_cache, False).result == [100, 0, 0, 70, True]


def test_empty_cache_inside_a_region_leaves_the_region_too(run: Callable[..., Ended]) -> None:
    # 2.13.0 frees here what is outside. At v26.2.0-0day-pytorch2.13.0 it does not: an active pool counts as a
    # graph capture (NPUCachingAllocator.cpp:3065).
    _, _, *region = run(empty_the_cache, True).result
    assert region == [0, 70, True]


def resume_without_memory(saver: Any, machine: Machine) -> None:
    with saver.region(tag="a", enable_cpu_backup=True):
        ones(600)
    saver.pause("a")
    taken = ones(600)
    try:
        saver.resume("a")
    finally:
        print("Python continues", taken)


def allocate_too_much(saver: Any, machine: Machine) -> None:
    with saver.region(tag="a"):
        try:
            ones(2000)
        finally:
            print("Python continues")


@pytest.mark.parametrize("function", [resume_without_memory, allocate_too_much])
def test_out_of_memory_ends_the_process(run: Callable[..., Ended], function: Callable[..., None]) -> None:
    ended = run(function)
    assert ended.code == 1
    assert f"{LINE}aclrtMallocPhysical failed" in ended.output
    assert "Python continues" not in ended.output


def pause_without_host_memory(saver: Any, machine: Machine) -> None:
    with saver.region(tag="a", enable_cpu_backup=True):
        ones(30)
    machine.fail("aclrtMallocHost", OUT_OF_MEMORY)
    saver.pause("a")


def test_a_failed_backup_allocation_ends_the_process(run: Callable[..., Ended]) -> None:
    ended = run(pause_without_host_memory)
    assert (ended.code, LINE in ended.output) == (1, True)


def fail_while_moving(saver: Any, machine: Machine, name: str, skip: int) -> Any:
    with saver.region(tag="a", enable_cpu_backup=True):
        tensor = ones(30)
    machine.fail(name, INTERNAL_ERROR, skip=skip)
    saver.pause("a")
    saver.resume("a")
    print("resumed", flush=True)  # before a crash
    return (tensor == 1).all().item()


@pytest.mark.parametrize("skip", [0, 1], ids=["pause", "resume"])
def test_a_failed_copy_is_silent_corruption(run: Callable[..., Ended], skip: int) -> None:
    ended = run(fail_while_moving, "aclrtMemcpy", skip)
    assert (ended.code, ended.result) == (0, False)
    assert LINE not in ended.output


def test_a_failed_mapping_shows_when_the_memory_is_used(run: Callable[..., Ended]) -> None:
    ended = run(fail_while_moving, "aclrtMapMem", 0)
    assert "resumed" in ended.output
    assert ended.code != 0
    assert LINE not in ended.output


def offload_expandable(saver: Any, machine: Machine) -> list[float]:
    import torch

    torch.npu.memory._set_allocator_settings("expandable_segments:True")
    with saver.region(tag="a", enable_cpu_backup=True):
        tensor = ones(30)
    before = torch.npu.mem_get_info()[0]
    saver.pause("a")
    return [torch.npu.mem_get_info()[0] - before, (tensor == 1).all().item()]


def test_with_expandable_segments_pause_does_nothing(run: Callable[..., Ended]) -> None:
    assert run(offload_expandable).result == [0, True]


def use_preload_mode(saver: Any, machine: Machine) -> None:
    saver.hook_mode = "preload"
    saver.pause()


def test_preload_mode_needs_its_library(run: Callable[..., Ended]) -> None:
    assert "TorchMemorySaver observes invalid LD_PRELOAD" in run(use_preload_mode).output
