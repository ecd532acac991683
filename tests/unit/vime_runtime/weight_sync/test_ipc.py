from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from vime_runtime.weight_sync import ipc
from vime_runtime.weight_sync.device_identity import machine_id
from vime_runtime.weight_sync.ipc import BufferReader, CpuBuffer, DeviceBuffer

# Names a device of the fake torch module below; no test allocates on it.
DEVICE = torch.device("meta", 0)
CPU = torch.device("cpu")
READER = """
import sys, torch
from vime_runtime.weight_sync.ipc import BufferReader
reader = BufferReader(torch.device("cpu"))
for line in sys.stdin:
    data = reader.open(bytes.fromhex(line))
    print(data.numel(), int(data.sum()), flush=True)
"""


def handle_of(buffer: CpuBuffer) -> bytes:
    return buffer.handles()[machine_id()]


def test_another_process_reads_every_write() -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    buffer = CpuBuffer()
    with subprocess.Popen(
        [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def read() -> list[int]:
            print(handle_of(buffer).hex(), file=reader.stdin, flush=True)
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
    handle = pickle.loads(handle_of(buffer))
    for change, message in (
        ({"inode": handle.inode + 1}, "was reused"),
        ({"nbytes": 65}, "was reused"),
        ({"pid": ended.pid}, "cannot open the weight buffer"),
    ):
        with pytest.raises(RuntimeError, match=message):
            BufferReader(CPU).open(pickle.dumps(dataclasses.replace(handle, **change)))


def test_reserving_fewer_bytes_keeps_the_buffer() -> None:
    buffer = CpuBuffer()
    buffer.reserve(128)
    buffer.data.fill_(5)
    before = buffer.handles()
    buffer.reserve(64)
    assert buffer.handles() == before
    assert torch.equal(buffer.data, torch.full((128,), 5, dtype=torch.uint8))


def rebuild(*arguments: object) -> object:
    """Take the place of what torch maps a buffer with."""
    if arguments[0] == "of a process that has exited":
        raise RuntimeError("error code is 107000")
    return arguments


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fake the torch module of a device; return what was done with its streams, pools and buffers."""
    events: list[str] = []

    @contextmanager
    def use_mem_pool(pool: str, device: torch.device) -> Iterator[None]:
        events.append(f"use {pool} on {device}")
        yield
        events.append("leave the pool")

    module = SimpleNamespace(
        current_device=lambda: 3,
        get_device_properties=lambda index: SimpleNamespace(uuid="uuid-7"),
        current_stream=lambda: SimpleNamespace(synchronize=lambda: events.append("wait for the stream")),
        MemPool=lambda: "a new pool",
        use_mem_pool=use_mem_pool,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(ipc, "device_uuid", lambda device: "npu 7")

    def reduce_tensor(tensor: torch.Tensor) -> object:
        events.append(f"export {tensor.numel()}")
        return rebuild, tuple(range(10))

    monkeypatch.setattr(ipc, "reduce_tensor", reduce_tensor)
    return events


def test_a_device_buffer_is_exported_when_its_handle_is_needed_and_after_its_stream(calls: list[str]) -> None:
    buffer = DeviceBuffer(DEVICE)
    buffer.reserve(64)
    assert calls == ["use a new pool on meta:0", "leave the pool"]
    for _ in range(2):
        assert list(buffer.handles()) == ["npu 7"]
    assert calls[2:] == ["wait for the stream", "export 64", "wait for the stream"]


def test_a_device_buffer_that_grows_has_another_pool_and_another_handle(calls: list[str]) -> None:
    buffer = DeviceBuffer(DEVICE)
    for nbytes in (64, 32, 128):
        buffer.reserve(nbytes)
        buffer.handles()
    assert [call for call in calls if "pool on" in call] == ["use a new pool on meta:0"] * 2
    assert [call for call in calls if "export" in call] == ["export 64", "export 128"]


@pytest.mark.parametrize(("device", "index"), [(torch.device("meta", 1), 1), (torch.device("meta"), 3)])
def test_device_handle_is_opened_with_the_readers_device_index(
    calls: list[str], device: torch.device, index: int
) -> None:
    buffer = DeviceBuffer(DEVICE)
    buffer.reserve(64)
    # torch and torch_npu have the index of the device at position 6.
    opened = BufferReader(device).open(buffer.handles()["npu 7"])
    assert opened == (0, 1, 2, 3, 4, 5, index, 7, 8, 9)


def test_a_device_buffer_that_cannot_be_mapped_is_an_error_that_names_the_device() -> None:
    handle = pickle.dumps(ipc.DeviceHandle(rebuild, ("of a process that has exited",) * 10))
    with pytest.raises(
        RuntimeError, match=r"buffer of the trainer on meta:0 \(.*exited\): error code is 107000"
    ):
        BufferReader(DEVICE).open(handle)
