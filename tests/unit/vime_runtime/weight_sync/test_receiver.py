"""Buckets into a model, from device memory and from CPU memory."""

from __future__ import annotations

import importlib
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vime_runtime.weight_sync.buckets import BucketExporter
from vime_runtime.weight_sync.device_identity import machine_id
from vime_runtime.weight_sync.transport import BucketMessage, WeightLocation

from harness.runtime.copying_loader import CopyingLoader

# What a receiver on a device did, in order.
OPENED: list[str] = []


class Model(torch.nn.Module):
    """A model whose parameters have the names of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(6, bias=False)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under test."""
    monkeypatch.setitem(
        sys.modules, "vime_runtime.weight_sync.direct_loader", SimpleNamespace(DirectLoader=CopyingLoader)
    )
    monkeypatch.delitem(sys.modules, "vime_runtime.weight_sync.receiver", raising=False)
    return importlib.import_module("vime_runtime.weight_sync.receiver")


def bucket(value: float) -> BucketMessage:
    message = BucketExporter(lambda: iter([("norm.weight", torch.full((6,), value))]), 64).next()
    assert message
    return message


class DeviceHandle:
    """A handle to 24 bytes on a device, fp32 3.0."""

    def map(self, device: torch.device) -> torch.Tensor:
        OPENED.append("device")
        return torch.full((6,), 3.0).view(torch.uint8)


@pytest.fixture
def on_device(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A receiver that takes its model to be on a device."""
    made = receiver.Receiver(Model())
    made._device = torch.device("meta")
    OPENED.clear()
    here = WeightLocation(machine_id(), "device-7")
    monkeypatch.setattr(receiver, "location_of", lambda device: here)
    waits = SimpleNamespace(synchronize=lambda: OPENED.append("waited"))
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(current_stream=lambda: waits))
    return made


def test_a_worker_on_a_cpu_reads_the_copy_in_cpu_memory(receiver: Any) -> None:
    model = Model()
    one = receiver.Receiver(model)
    one.begin()
    one.receive(bucket(2.0))
    one.finish()
    assert model.norm.weight.tolist() == [2.0] * 6


@pytest.mark.parametrize(
    ("copies", "value", "opened"),
    [(["device-6", "device-7"], 3.0, ["device", "waited"]), (["device-6"], 2.0, ["waited"])],
)
def test_a_worker_on_a_device_reads_the_copy_there_or_else_in_cpu_memory(
    on_device: Any, copies: list[str], value: float, opened: list[str]
) -> None:
    message = bucket(2.0)
    # The handle to another device cannot be unpickled here.
    all_handles = {"device-6": b"", "device-7": pickle.dumps(DeviceHandle())}
    handles = {copy: all_handles[copy] for copy in copies} | message.handles
    on_device.begin()
    on_device.receive(BucketMessage(handles, message.tensors))
    assert on_device._model.norm.weight.tolist() == [value] * 6
    assert opened == OPENED  # it returns when the buffer may be overwritten


def test_an_unreachable_bucket_is_an_error_that_names_its_locations(on_device: Any) -> None:
    on_device.begin()
    with pytest.raises(RuntimeError, match=r"device \(device-7\).*some on device-6, another machine"):
        on_device.receive(BucketMessage({"device-6": b"", "another machine": b""}, ()))


def test_a_bucket_outside_an_update_is_refused(receiver: Any) -> None:
    one = receiver.Receiver(Model())
    with pytest.raises(RuntimeError, match="no weight update has begun"):
        one.receive(bucket(1.0))
    one.begin()
    one.receive(bucket(1.0))
    one.finish()
    with pytest.raises(RuntimeError, match="no weight update has begun"):
        one.finish()
