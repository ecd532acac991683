from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from vime_runtime.weight_sync import device_identity, device_ipc

DEVICE = torch.device("meta", 0)


class Streams:
    """Stands in for a device's torch module: notes what is waited for, in order with what else happens."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def current_device(self) -> int:
        return 3

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid="chip-7")

    def synchronize(self) -> None:
        self._events.append("wait for the device")

    def current_stream(self) -> SimpleNamespace:
        return SimpleNamespace(synchronize=lambda: self._events.append("wait for the stream"))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(torch, "get_device_module", lambda device: Streams(found))
    reduced = (lambda *arguments: arguments, tuple(range(10)))
    monkeypatch.setattr(device_ipc, "reduce_tensor", lambda tensor: reduced)
    return found


def test_handles_are_handed_out_after_the_stream_that_packed(events: list[str]) -> None:
    buffer = device_ipc.DeviceBuffer(DEVICE)
    buffer.reserve(64)
    assert events == []
    assert list(buffer.handles()) == ["chip-7"]
    assert events == ["wait for the stream"]


def test_packing_begins_after_all_streams_that_may_compute_weights(events: list[str]) -> None:
    buffer = device_ipc.DeviceBuffer(DEVICE)
    buffer.wait_for_producers()
    assert events == ["wait for the device"]


def test_a_handle_is_opened_as_a_device_of_the_reader(events: list[str]) -> None:
    buffer = device_ipc.DeviceBuffer(DEVICE)
    buffer.reserve(64)
    # 6 is where torch and torch_npu have the index of the device.
    assert device_ipc.DevicePeer(torch.device("meta", 1)).open(buffer.handles()) == (
        0,
        1,
        2,
        3,
        4,
        5,
        1,
        7,
        8,
        9,
    )
    assert device_ipc.DevicePeer(torch.device("meta")).open(buffer.handles())[6] == 3


def test_a_reader_on_another_chip_says_where_there_are_buffers(events: list[str]) -> None:
    with pytest.raises(RuntimeError, match="no weight buffer on device chip-7; there are some on chip-9"):
        device_ipc.DevicePeer(DEVICE).open({"chip-9": ...})


@pytest.mark.needs("gpu")
def test_a_bucket_on_a_device_is_found_by_the_device() -> None:
    device = torch.device("cuda", 0)
    buffer = device_ipc.DeviceBuffer(device)
    buffer.reserve(100)
    assert list(buffer.handles()) == [device_identity.chip_id(device)]
    with pytest.raises(RuntimeError, match="no weight buffer on device"):
        device_ipc.DevicePeer(device).open({"elsewhere": buffer.handles()})
