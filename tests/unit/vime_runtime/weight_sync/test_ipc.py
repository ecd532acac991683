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
from vime_runtime.weight_sync.ipc import BufferReader, CpuBuffer, CpuHandle, DeviceBuffer

# Names a device of the fake torch module below; no test allocates on it.
DEVICE = torch.device("meta", 0)
CPU = torch.device("cpu")
READER = """
import sys, torch
from vime_runtime.weight_sync.ipc import BufferReader, CpuHandle
reader = BufferReader(torch.device("cpu"))
for line in sys.stdin:
    data = reader.open(CpuHandle(*map(int, line.split())))
    print(data.numel(), int(data.sum()), flush=True)
"""


def handle_of(buffer: CpuBuffer) -> CpuHandle:
    return buffer.handles()[machine_id()]


def test_another_process_reads_every_write() -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    buffer = CpuBuffer()
    with subprocess.Popen(
        [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def read() -> list[int]:
            print(*dataclasses.astuple(handle_of(buffer)), file=reader.stdin, flush=True)
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
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    handle = handle_of(buffer)
    for change, message in (
        ({"inode": handle.inode + 1}, "was reused"),
        ({"nbytes": 65}, "was reused"),
        ({"pid": ended.pid}, "cannot open the weight buffer"),
    ):
        with pytest.raises(RuntimeError, match=message):
            BufferReader(CPU).open(dataclasses.replace(handle, **change))


def test_reserving_fewer_bytes_keeps_the_buffer() -> None:
    buffer = CpuBuffer()
    buffer.reserve(128)
    buffer.data.fill_(5)
    before = buffer.handles()
    buffer.reserve(64)
    assert buffer.handles() == before
    assert torch.equal(buffer.data, torch.full((128,), 5, dtype=torch.uint8))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fake the torch module of a device; return the calls that waited for a stream of it."""
    events: list[str] = []
    module = SimpleNamespace(
        current_device=lambda: 3,
        get_device_properties=lambda index: SimpleNamespace(uuid="uuid-7"),
        current_stream=lambda: SimpleNamespace(synchronize=lambda: events.append("stream")),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    reduced = (lambda *arguments: arguments, tuple(range(10)))
    monkeypatch.setattr(ipc, "reduce_tensor", lambda tensor: reduced)
    return events


def test_device_handles_wait_for_the_stream_that_filled_the_buffer(waits: list[str]) -> None:
    buffer = DeviceBuffer(DEVICE)
    buffer.reserve(64)
    assert waits == []
    assert list(buffer.handles()) == ["uuid-7"]
    assert waits == ["stream"]


@pytest.mark.parametrize(("device", "index"), [(torch.device("meta", 1), 1), (torch.device("meta"), 3)])
def test_device_handle_is_opened_with_the_readers_device_index(
    waits: list[str], device: torch.device, index: int
) -> None:
    buffer = DeviceBuffer(DEVICE)
    buffer.reserve(64)
    # torch and torch_npu have the index of the device at position 6.
    opened = BufferReader(device).open(buffer.handles()["uuid-7"])
    assert opened == (0, 1, 2, 3, 4, 5, index, 7, 8, 9)


@pytest.mark.needs("gpu")
def test_device_buffer_is_found_by_the_real_device() -> None:
    device = torch.device("cuda", 0)
    buffer = DeviceBuffer(device)
    buffer.reserve(100)
    assert list(buffer.handles()) == [device_uuid(device)]
