"""Buckets into a model, whichever memory they lie in; how they came there is not the receiver's affair."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vime_runtime.weight_sync.buckets import BucketExporter
from vime_runtime.weight_sync.message import BucketMessage


class Model(torch.nn.Module):
    """What vLLM calls the parameters is what the checkpoint calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(6, bias=False)


class Loader:
    """Stands in for the direct loader, which imports vLLM; it has tests of its own."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters = dict(model.named_parameters())

    def load(self, name: str, tensor: torch.Tensor, full: tuple[int, ...], start: int) -> None:
        assert self._parameters[name].shape == full
        self._parameters[name].data[start : start + len(tensor)].copy_(tensor)

    def finish(self) -> None:
        """Everything has come."""


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
def on_chip(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A receiver whose model seems to lie on a chip; what is mapped there is plain memory."""
    made = receiver.Receiver(Model())
    opened: list[str] = []
    mapped = torch.full((64,), 0, dtype=torch.uint8)
    mapped[:24].view(torch.float32).fill_(3.0)
    made._chip = SimpleNamespace(open=lambda handles: opened.append("chip") or mapped, close=lambda: None)
    monkeypatch.setattr(receiver, "chip_id", lambda device: "chip-7")
    waits = SimpleNamespace(synchronize=lambda: opened.append("waited"))
    module = SimpleNamespace(current_stream=lambda: waits)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    made.opened = opened
    return made


def test_without_a_chip_the_buffer_of_the_machine_is_read(receiver: Any) -> None:
    model = Model()
    one = receiver.Receiver(model)
    one.begin()
    held = bucket(2.0)
    one.receive(held)
    one.finish()
    one.close()
    assert model.norm.weight.tolist() == [2.0] * 6


def test_a_worker_finds_the_copy_on_its_own_chip_among_those_of_all_ranks(on_chip: Any) -> None:
    message = bucket(2.0)
    handles = {"chip-6": ..., "chip-7": ..., **message.handles}
    on_chip.begin()
    on_chip.receive(BucketMessage(handles, message.tensors))
    assert on_chip._model.norm.weight.tolist() == [3.0] * 6
    assert on_chip.opened == ["chip", "waited"]  # it returns when the buffer may be overwritten


def test_where_trainer_and_engine_share_no_chip_the_memory_of_the_host_is_read(on_chip: Any) -> None:
    message = bucket(2.0)
    on_chip.begin()
    on_chip.receive(BucketMessage({"chip-6": ..., **message.handles}, message.tensors))
    assert on_chip._model.norm.weight.tolist() == [2.0] * 6
    assert on_chip.opened == ["waited"]


def test_weights_that_are_nowhere_near_are_an_error_that_says_where_they_are(on_chip: Any) -> None:
    on_chip.begin()
    with pytest.raises(RuntimeError, match=r"device \(chip-7\).*some on chip-6, another host"):
        on_chip.receive(BucketMessage({"chip-6": ..., "another host": ...}, ()))


def test_a_bucket_outside_an_update_is_refused(receiver: Any) -> None:
    one = receiver.Receiver(Model())
    with pytest.raises(RuntimeError, match="no weight update has begun"):
        one.receive(bucket(1.0))
    one.begin()
    one.receive(bucket(1.0))
    one.finish()
    with pytest.raises(RuntimeError, match="no weight update has begun"):
        one.finish()
