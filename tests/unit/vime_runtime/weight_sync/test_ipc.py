from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from vime_runtime.weight_sync import ipc
from vime_runtime.weight_sync.device_identity import device_uuid, machine_id
from vime_runtime.weight_sync.ipc import CpuBuffer, CpuBufferReader, DeviceBuffer, DeviceBufferReader

# Names a device of the fake torch module below; no test allocates on it.
DEVICE = torch.device("meta", 0)
READER = """
import sys
from vime_runtime.weight_sync.device_identity import machine_id
from vime_runtime.weight_sync.ipc import CpuBufferReader, CpuHandle
reader = CpuBufferReader()
for line in sys.stdin:
    data = reader.open({machine_id(): CpuHandle(*map(int, line.split()))})
    print(data.numel(), int(data.sum()), flush=True)
"""


def test_another_process_reads_every_write() -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    buffer = CpuBuffer()
    with subprocess.Popen(
        [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def read() -> list[int]:
            handle = dataclasses.astuple(buffer.handles()[machine_id()])
            print(*handle, file=reader.stdin, flush=True)
            return [int(number) for number in reader.stdout.readline().split()]

        buffer.reserve(1000)
        buffer.data.fill_(2)
        assert read() == [1000, 2000]
        buffer.data.fill_(3)
        assert read() == [1000, 3000]
        buffer.reserve(5000)  # the mapping of the smaller buffer is replaced
        buffer.data.fill_(1)
        assert read() == [5000, 5000]
        assert not [name for name in set(os.listdir("/dev/shm")) - shared_memory if "vime" in name]
        reader.stdin.close()


def test_handle_to_another_file_is_refused() -> None:
    buffer = CpuBuffer()
    buffer.reserve(64)
    handle = buffer.handles()[machine_id()]
    with pytest.raises(RuntimeError, match="was reused"):
        CpuBufferReader().open({machine_id(): dataclasses.replace(handle, inode=handle.inode + 1)})
    with pytest.raises(RuntimeError, match="was reused"):
        CpuBufferReader().open({machine_id(): dataclasses.replace(handle, nbytes=65)})
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(RuntimeError, match="cannot open the weight buffer"):
        CpuBufferReader().open({machine_id(): dataclasses.replace(handle, pid=ended.pid)})


def test_missing_copy_names_the_machines_that_have_one() -> None:
    with pytest.raises(RuntimeError, match=r"no rank of the trainer on this machine \(host .*elsewhere"):
        CpuBufferReader().open({"elsewhere": CpuBuffer().handles()[machine_id()]})


def test_reader_opens_the_copy_on_its_own_machine() -> None:
    here, there = CpuBuffer(), CpuBuffer()
    for buffer, value in ((here, 1), (there, 2)):
        buffer.reserve(10)
        buffer.data.fill_(value)
    handles = {"another machine": there.handles()[machine_id()], **here.handles()}
    assert CpuBufferReader().open(handles).tolist() == [1] * 10


def test_reserving_fewer_bytes_keeps_the_buffer() -> None:
    buffer = CpuBuffer()
    buffer.reserve(128)
    buffer.data.fill_(5)
    before = buffer.handles()
    buffer.reserve(64)
    assert buffer.handles() == before
    assert torch.equal(buffer.data, torch.full((128,), 5, dtype=torch.uint8))


class DeviceModule:
    """A fake torch module of a device that records in order what the code waits for."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def current_device(self) -> int:
        return 3

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid="uuid-7")

    def synchronize(self) -> None:
        self._events.append("device")

    def current_stream(self) -> SimpleNamespace:
        return SimpleNamespace(synchronize=lambda: self._events.append("stream"))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the calls that waited for the device."""
    events: list[str] = []
    monkeypatch.setattr(torch, "get_device_module", lambda device: DeviceModule(events))
    reduced = (lambda *arguments: arguments, tuple(range(10)))
    monkeypatch.setattr(ipc, "reduce_tensor", lambda tensor: reduced)
    return events


def test_device_handles_wait_for_the_stream_that_filled_the_buffer(waits: list[str]) -> None:
    buffer = DeviceBuffer(DEVICE)
    buffer.reserve(64)
    assert waits == []
    assert list(buffer.handles()) == ["uuid-7"]
    assert waits == ["stream"]


def test_filling_waits_for_all_streams_that_may_compute_weights(waits: list[str]) -> None:
    DeviceBuffer(DEVICE).wait_for_producers()
    assert waits == ["device"]


@pytest.mark.parametrize(("device", "index"), [(torch.device("meta", 1), 1), (torch.device("meta"), 3)])
def test_device_handle_is_opened_with_the_readers_device_index(
    waits: list[str], device: torch.device, index: int
) -> None:
    buffer = DeviceBuffer(DEVICE)
    buffer.reserve(64)
    # torch and torch_npu have the index of the device at position 6.
    assert DeviceBufferReader(device).open(buffer.handles()) == (0, 1, 2, 3, 4, 5, index, 7, 8, 9)


def test_missing_device_copy_names_the_devices_that_have_one(waits: list[str]) -> None:
    with pytest.raises(RuntimeError, match="no weight buffer on device uuid-7; there are some on uuid-9"):
        DeviceBufferReader(DEVICE).open({"uuid-9": ...})


@pytest.mark.needs("gpu")
def test_device_buffer_is_found_by_the_real_device() -> None:
    device = torch.device("cuda", 0)
    buffer = DeviceBuffer(device)
    buffer.reserve(100)
    assert list(buffer.handles()) == [device_uuid(device)]
    with pytest.raises(RuntimeError, match="no weight buffer on device"):
        DeviceBufferReader(device).open({"another device": buffer.handles()})
