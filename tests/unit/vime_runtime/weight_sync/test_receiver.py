"""Buckets into a model, from device memory and from CPU memory."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vime_runtime.weight_sync.buckets import BucketExporter
from vime_runtime.weight_sync.transport import BucketMessage


class Model(torch.nn.Module):
    """A model whose parameters have the names of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(6, bias=False)


class Loader:
    """A fake of the direct loader, which imports vLLM and has its own tests."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters = dict(model.named_parameters())

    def load(self, name: str, tensor: torch.Tensor, full: tuple[int, ...], start: int) -> None:
        assert self._parameters[name].shape == full
        self._parameters[name].data[start : start + len(tensor)].copy_(tensor)

    def finish(self) -> None:
        """Accept every update."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under test."""
    monkeypatch.setitem(
        sys.modules, "vime_runtime.weight_sync.direct_loader", SimpleNamespace(DirectLoader=Loader)
    )
    monkeypatch.delitem(sys.modules, "vime_runtime.weight_sync.receiver", raising=False)
    return importlib.import_module("vime_runtime.weight_sync.receiver")


def bucket(value: float) -> BucketMessage:
    message = BucketExporter(lambda: iter([("norm.weight", torch.full((6,), value))]), 64).next()
    assert message
    return message


@pytest.fixture
def on_device(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A receiver that takes its model to be on a device, and maps plain memory there."""
    made = receiver.Receiver(Model())
    opened: list[str] = []
    mapped = torch.full((64,), 0, dtype=torch.uint8)
    mapped[:24].view(torch.float32).fill_(3.0)
    made._device_reader = SimpleNamespace(open=lambda handles: opened.append("device") or mapped)
    monkeypatch.setattr(receiver, "device_uuid", lambda device: "device-7")
    waits = SimpleNamespace(synchronize=lambda: opened.append("waited"))
    module = SimpleNamespace(current_stream=lambda: waits)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    made.opened = opened
    return made


def test_a_worker_on_a_cpu_reads_the_copy_in_cpu_memory(receiver: Any) -> None:
    model = Model()
    one = receiver.Receiver(model)
    one.begin()
    one.receive(bucket(2.0))
    one.finish()
    assert model.norm.weight.tolist() == [2.0] * 6


def test_a_worker_on_a_device_reads_the_copy_there(on_device: Any) -> None:
    message = bucket(2.0)
    handles = {"device-6": ..., "device-7": ..., **message.handles}
    on_device.begin()
    on_device.receive(BucketMessage(handles, message.tensors))
    assert on_device._model.norm.weight.tolist() == [3.0] * 6
    assert on_device.opened == ["device", "waited"]  # it returns when the buffer may be overwritten


def test_a_worker_on_another_device_reads_the_copy_in_cpu_memory(on_device: Any) -> None:
    message = bucket(2.0)
    on_device.begin()
    on_device.receive(BucketMessage({"device-6": ..., **message.handles}, message.tensors))
    assert on_device._model.norm.weight.tolist() == [2.0] * 6
    assert on_device.opened == ["waited"]


def test_an_unreachable_bucket_is_an_error_that_names_its_locations(on_device: Any) -> None:
    on_device.begin()
    with pytest.raises(RuntimeError, match=r"device \(device-7\).*some on device-6, another machine"):
        on_device.receive(BucketMessage({"device-6": ..., "another machine": ...}, ()))


def test_a_bucket_outside_an_update_is_refused(receiver: Any) -> None:
    one = receiver.Receiver(Model())
    with pytest.raises(RuntimeError, match="no weight update has begun"):
        one.receive(bucket(1.0))
    one.begin()
    one.receive(bucket(1.0))
    one.finish()
    with pytest.raises(RuntimeError, match="no weight update has begun"):
        one.finish()
