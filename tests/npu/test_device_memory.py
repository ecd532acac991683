"""Device memory under the released torch_npu: limits, sharing between processes, errors on request."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.npu.machine import Machine
from harness.runtime.rank_processes import Process

pytestmark = pytest.mark.needs("network")

MIB = 1 << 20
CHIP = 64 * MIB
# acl/error_codes/rt_error_codes.h
OUT_OF_MEMORY, INVALID, NO_SUCH_DEVICE, COPY_FAILED, IPC_FAILED = 207001, 107000, 107001, 507052, 507022


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "npus", chips=2, chip_bytes=CHIP)


@pytest.fixture(scope="module")
def processes(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    folder = tmp_path_factory.mktemp("processes")
    processes = [machine.start(folder, "1"), machine.start(folder, "0,1")]
    yield processes
    for process in processes:
        process.close()


def collect() -> None:
    """Return all memory that nothing uses."""
    torch.npu.ipc_collect()
    torch.npu.empty_cache()


@pytest.fixture
def pair(processes: list[Process]) -> list[Process]:
    """A process with chip 1 as its only device, and one on chip 0 that sees both; their caches are empty."""
    for process in processes:
        process.run(collect)
    return processes


def hold(nbytes: int) -> dict[str, int]:
    """Allocate twice the same; return the bytes of the chip that are then in use."""
    free, total = torch.npu.mem_get_info()
    seen = {"total": total}

    def note(name: str) -> None:
        seen[name] = free - torch.npu.mem_get_info()[0]

    tensor = torch.empty(nbytes, dtype=torch.uint8, device="npu")
    note("held")
    view = tensor[10:]
    del tensor
    note("viewed")
    del view
    note("cached")
    tensor = torch.empty(nbytes, dtype=torch.uint8, device="npu")
    note("reused")
    del tensor
    torch.npu.empty_cache()
    note("returned")
    return seen


def test_freed_memory_stays_cached_until_empty_cache(machine: Machine, pair: list[Process]) -> None:
    # torch_npu adds 32 bytes and rounds up to 2 MiB (NPUCachingAllocator.cpp, get_allocation_size).
    segment = 12 * MIB
    held = dict.fromkeys(("held", "viewed", "cached", "reused"), segment)
    assert pair[0].run(hold, 10 * MIB) == {"total": CHIP, **held, "returned": 0}
    calls = [event for event in machine.events("aclrtMallocAlign32", "aclrtFree") if event["chip"] == 1]
    assert [(call["name"], call["pid"], call["nbytes"], call["used"]) for call in calls] == [
        ("aclrtMallocAlign32", pair[0].popen.pid, segment, segment),
        ("aclrtFree", pair[0].popen.pid, segment, 0),
    ]


def keep(nbytes: int) -> None:
    torch.npu.kept = torch.empty(nbytes, dtype=torch.uint8, device="npu")


def allocate(nbytes: int) -> str:
    """Allocate, and return the error."""
    try:
        torch.empty(nbytes, dtype=torch.uint8, device="npu")
    except torch.OutOfMemoryError as e:
        return str(e)
    return ""


def test_a_failed_allocation_is_tried_again_without_the_cache(machine: Machine, pair: list[Process]) -> None:
    machine.fail("aclrtMallocAlign32", OUT_OF_MEMORY, chip=1)
    assert pair[1].run(allocate, 10 * MIB) == ""
    assert pair[0].run(allocate, 10 * MIB) == ""
    machine.fail("aclrtMallocAlign32", OUT_OF_MEMORY, count=2, chip=1)
    assert "Tried to allocate 32.00 MiB" in pair[0].run(allocate, 30 * MIB)
    assert pair[0].run(allocate, 30 * MIB) == ""


def export(first: int) -> bytes:
    """Export a tensor to other processes, uint8 [1000], of consecutive numbers."""
    import pickle

    from torch.multiprocessing.reductions import reduce_tensor

    torch.npu.empty_cache()
    torch.npu.exported = torch.empty(1100, dtype=torch.uint8, device="npu")[100:]
    torch.npu.exported.copy_(torch.arange(first, first + 1000).to(torch.uint8))
    return pickle.dumps(reduce_tensor(torch.npu.exported))


def import_(handle: bytes, device: int) -> Any:
    """Map a tensor of another process and write 7 to its start; return it as it was, or the error."""
    import pickle

    rebuild, arguments = pickle.loads(handle)
    before = torch.npu.memory_allocated(device)
    try:
        tensor = rebuild(*arguments[:6], device, *arguments[7:])
    except RuntimeError as e:
        return str(e)
    assert torch.npu.memory_allocated(device) == before
    torch.npu.imported = tensor
    values = tensor.cpu()
    tensor[:1].copy_(torch.tensor([7], dtype=torch.uint8))
    return values


def exported() -> list[int]:
    return torch.npu.exported[:2].cpu().tolist()


def drop(name: str) -> None:
    """Drop a tensor that an earlier function left."""
    delattr(torch.npu, name)
    torch.npu.ipc_collect()
    torch.npu.empty_cache()


def test_another_process_maps_exported_memory_on_the_same_chip(machine: Machine, pair: list[Process]) -> None:
    used = machine.used(1)
    handle = pair[0].run(export, 41)
    values = pair[1].run(import_, handle, 1)
    assert torch.equal(values, torch.arange(41, 1041).to(torch.uint8))
    assert pair[0].run(exported) == [7, 42]
    taken = machine.events("aclrtIpcMemImportByKey")[-1]
    assert (taken["owner"], taken["pid"], taken["chip"]) == (pair[0].popen.pid, pair[1].popen.pid, 1)
    # The exporter cannot return the segment before the importer has unmapped it.
    pair[0].run(drop, "exported")
    assert machine.used(1) == used + 2 * MIB
    pair[1].run(drop, "imported")
    pair[0].run(collect)
    assert machine.used(1) == used


def test_a_key_is_refused_on_another_chip_and_on_request(machine: Machine, pair: list[Process]) -> None:
    handle = pair[0].run(export, 1)
    assert "AclrtIpcMemImportByKey" in pair[1].run(import_, handle, 0)
    machine.fail("aclrtIpcMemImportByKey", IPC_FAILED, chip=1)
    assert f"error code is {IPC_FAILED}" in pair[1].run(import_, handle, 1)
    pair[0].run(drop, "exported")


def test_a_dead_process_holds_no_memory_and_its_keys_are_refused(
    machine: Machine, pair: list[Process], tmp_path: Path
) -> None:
    used = machine.used(1)
    other = machine.start(tmp_path, "1")
    handle = other.run(export, 1)
    other.run(keep, 40 * MIB)
    assert machine.holders(1)[other.popen.pid, "malloc"] == machine.used(1) - used == 44 * MIB
    error = pair[0].run(allocate, 40 * MIB)
    assert error.startswith("NPU out of memory. Tried to allocate 42.00 MiB (NPU 0; 64.00 MiB total")
    assert f"{(CHIP - machine.used(1)) // MIB}.00 MiB free" in error
    assert pair[1].run(allocate, 40 * MIB) == ""  # on the other chip
    other.popen.send_signal(signal.SIGKILL)
    other.popen.wait()
    assert machine.used(1) == used
    assert pair[0].run(allocate, 40 * MIB) == ""
    assert f"error code is {INVALID}" in pair[1].run(import_, handle, 1)


def properties() -> list[str]:
    return [str(torch.npu.get_device_properties(device).uuid) for device in range(torch.npu.device_count())]


def test_devices_have_distinct_uuids_shared_ones_or_none(pair: list[Process], tmp_path: Path) -> None:
    uuids: dict[str, list[str]] = {"distinct": pair[1].run(properties)}
    for mode in ("shared", "none"):
        folder = tmp_path / mode
        folder.mkdir()
        process = Machine(folder / "npus", chips=4, uuid=mode).start(folder, "0,1,2")
        uuids[mode] = process.run(properties)
        process.close()
    assert len(set(uuids["distinct"])) == 2
    assert uuids["shared"][0] == uuids["shared"][1] != uuids["shared"][2]
    assert set(uuids["none"]) == {"00000000-0000-0000-0000-000000000000"}


@pytest.mark.parametrize(
    ("listed", "chips"),
    [
        ("0,1", [0, 1]),
        ("0,2", [0, 2]),
        ("2,1", [2]),
        ("0,9,1", [0]),
        ("1, 2", [1]),
        ("", []),
        (None, [0, 1, 2]),
    ],
)
def test_a_list_of_devices_is_read_as_far_as_it_ascends(
    tmp_path: Path, listed: str | None, chips: list[int]
) -> None:
    environment = Machine(tmp_path / "npus", chips=3).environment()
    environment |= {} if listed is None else {"ASCEND_RT_VISIBLE_DEVICES": listed}
    code = (
        "import ctypes; acl = ctypes.CDLL('libascendcl.so');"
        "print(*map(acl.account_chip, range(acl.account_devices())))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.split() == [str(chip).encode() for chip in chips]


def pin() -> tuple[list[bool], list[int]]:
    """Return which tensors are pinned, and where CANN finds one that is, one of the device and another."""
    import ctypes

    pinned, other = torch.empty(1000).pin_memory(), torch.empty(1000)
    found = (ctypes.c_uint32 * 7)()  # aclrtPtrAttributes: id, type, page size, reserved
    places = []
    for tensor in (pinned[10:], torch.empty(1000, device="npu")[10:], other):
        assert acl("aclrtPointerGetAttributes", tensor.data_ptr(), found) == 0
        places.append(found[1])
    return [pinned.is_pinned(), pinned[10:].is_pinned(), other.is_pinned()], places


def test_pinned_memory_is_that_of_cann(pair: list[Process]) -> None:
    host, device, unregistered = 0, 1, 2  # aclrtMemLocationType
    assert pair[0].run(pin) == ([True, True, False], [host, device, unregistered])


def time_events() -> tuple[list[bool], float, str]:
    start, end, untimed = (torch.npu.Event(enable_timing=timed) for timed in (True, True, False))
    stream = torch.npu.Stream()
    start.record()
    stream.wait_event(start)
    untimed.record(stream)
    end.record(stream)
    end.synchronize()
    stream.synchronize()
    try:
        start.elapsed_time(untimed)
    except RuntimeError as e:
        return [stream.query(), end.query()], start.elapsed_time(end), str(e)
    return [], 0.0, ""


def test_events_are_complete_and_have_a_time_on_request(pair: list[Process]) -> None:
    complete, elapsed, error = pair[0].run(time_events)
    assert complete == [True, True]
    assert elapsed > 0
    assert "error code is 107006" in error


def use_expandable_segments() -> list[str]:
    """Allocate and free what fits and what does not; return the errors and the free bytes."""
    seen = [allocate(40 * MIB), allocate(80 * MIB)]
    torch.npu.empty_cache()
    return [*seen, f"{torch.npu.mem_get_info()[0]}"]


def test_expandable_segments_map_and_unmap_physical_memory(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "npus", chip_bytes=CHIP)
    process = machine.start(tmp_path, "0", PYTORCH_NPU_ALLOC_CONF="expandable_segments:True")
    fits, too_much, free = process.run(use_expandable_segments)
    assert fits == ""
    assert "NPU out of memory" in too_much
    assert int(free) == CHIP

    def total(name: str) -> int:
        return sum(event["nbytes"] for event in machine.events(name))

    # In pieces of 20 MiB; of those for 80 MiB, which do not fit, none is mapped.
    assert total("aclrtMallocPhysical") == total("aclrtFreePhysical") == (60 + 60) * MIB
    assert total("aclrtMapMem") == total("aclrtUnmapMem") == 60 * MIB
    machine.fail("aclrtMallocPhysical", OUT_OF_MEMORY, count=2)
    assert "NPU out of memory" in process.run(allocate, 40 * MIB)
    process.close()


def acl(name: str, *arguments: Any) -> int:
    """Call a function of libascendcl; numbers are passed in 64 bits, which is right for narrower ones too."""
    import ctypes

    passed = (ctypes.c_uint64(value) if isinstance(value, int) else value for value in arguments)
    return getattr(ctypes.CDLL("libascendcl.so"), name)(*passed)


def physical_memory(nbytes: int) -> tuple[int, int | None]:
    """Return the code of aclrtMallocPhysical and the handle."""
    import ctypes

    # aclrtPhysicalMemProp: handleType, allocationType, memAttr, location (id, type), reserve
    wanted = (ctypes.c_int32 * 8)(0, 0, 0, 0, 1)
    handle = ctypes.c_void_p()
    return acl("aclrtMallocPhysical", ctypes.byref(handle), nbytes, wanted, 0), handle.value


def misuse() -> dict[str, tuple[int, ...]]:
    """Use device memory rightly and wrongly; return the codes of the calls."""
    import ctypes

    page, to_device, to_host, on_device = 2 * MIB, 1, 2, 3
    memory, address, host = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.create_string_buffer(100)
    torch.npu.set_device(0)
    created = [
        acl("aclrtMalloc", ctypes.byref(memory), 100, 0),
        acl("aclrtReserveMemAddress", ctypes.byref(address), page, 0, None, 0),
    ]
    (first, handle), (second, other) = physical_memory(page), physical_memory(page)
    # Evaluated in this order.
    return {
        "create": (*created, first, second),
        "create physical memory of no whole pages": (physical_memory(MIB)[0],),
        "copy to what is not mapped": (acl("aclrtMemcpy", address, 100, host, 100, to_device),),
        "unmap nothing": (acl("aclrtUnmapMem", address),),
        "map half": (acl("aclrtMapMem", address, MIB, 0, handle, 0),),
        "map": (acl("aclrtMapMem", address, page, 0, handle, 0),),
        "map over it": (acl("aclrtMapMem", address, page, 0, other, 0),),
        "copy": (acl("aclrtMemcpy", address, 100, host, 100, to_device),),
        "copy more than fits": (acl("aclrtMemcpy", address, 99, host, 100, to_device),),
        "copy beyond the end": (acl("aclrtMemcpy", address, page, memory, page, on_device),),
        "copy in the wrong direction": (acl("aclrtMemcpy", host, 100, memory, 100, to_device),),
        "free what is mapped": (acl("aclrtFreePhysical", handle),),
        "release what is mapped": (acl("aclrtReleaseMemAddress", address),),
        "unmap twice": (acl("aclrtUnmapMem", address), acl("aclrtUnmapMem", address)),
        "map again and copy": (
            acl("aclrtMapMem", address, page, 0, handle, 0),
            acl("aclrtMemcpy", host, 100, address, 100, to_host),
            acl("aclrtUnmapMem", address),
        ),
        "release twice": (acl("aclrtReleaseMemAddress", address), acl("aclrtReleaseMemAddress", address)),
        "map where nothing is reserved": (acl("aclrtMapMem", address, page, 0, handle, 0),),
        "free": (acl("aclrtFreePhysical", handle), acl("aclrtFreePhysical", other)),
        "free twice": (acl("aclrtFree", memory), acl("aclrtFree", memory)),
        "set a device that is not there": (acl("aclrtSetDevice", 1),),
    }


def test_wrong_use_of_device_memory_is_an_error(machine: Machine, pair: list[Process]) -> None:
    used = machine.used(1)
    bad = INVALID
    assert pair[0].run(misuse) == {
        "create": (0, 0, 0, 0),
        "create physical memory of no whole pages": (bad,),
        "copy to what is not mapped": (bad,),
        "unmap nothing": (bad,),
        "map half": (bad,),
        "map": (0,),
        "map over it": (bad,),
        "copy": (0,),
        "copy more than fits": (bad,),
        "copy beyond the end": (bad,),
        "copy in the wrong direction": (bad,),
        "free what is mapped": (bad,),
        "release what is mapped": (bad,),
        "unmap twice": (0, bad),
        "map again and copy": (0, 0, 0),
        "release twice": (0, bad),
        "map where nothing is reserved": (bad,),
        "free": (0, 0),
        "free twice": (0, bad),
        "set a device that is not there": (NO_SUCH_DEVICE,),
    }
    assert machine.used(1) == used


def test_calls_fail_on_request_by_name_and_chip(machine: Machine, pair: list[Process]) -> None:
    machine.fail("aclrtMallocPhysical", OUT_OF_MEMORY, skip=1, count=2, chip=0)
    assert pair[0].run(physical_memory, 2 * MIB)[0] == 0  # on chip 1
    codes = [pair[1].run(physical_memory, 2 * MIB)[0] for _ in range(4)]
    assert codes == [0, OUT_OF_MEMORY, OUT_OF_MEMORY, 0]
    failed = [event for event in machine.events("aclrtMallocPhysical") if "code" in event]
    assert [(event["code"], event["chip"]) for event in failed] == [(OUT_OF_MEMORY, 0)] * 2
    for name, code in (("aclrtMemcpy", COPY_FAILED), ("aclrtMapMem", OUT_OF_MEMORY)):
        machine.fail(name, code, skip=1)
    use = pair[0].run(misuse)
    assert (use["map"], use["map over it"]) == ((0,), (OUT_OF_MEMORY,))
    assert (use["copy"], use["map again and copy"]) == ((0,), (0, COPY_FAILED, 0))
