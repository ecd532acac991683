from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from vime_runtime.sync import device_ipc


def chips(monkeypatch: pytest.MonkeyPatch, **properties: str) -> None:
    """Stand in for a device's torch module, which this machine need not have."""
    module = SimpleNamespace(
        current_device=lambda: 1, get_device_properties=lambda index: SimpleNamespace(**properties)
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)


def test_a_chip_is_known_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    chips(monkeypatch, uuid="GPU-17")
    assert device_ipc.physical_id(torch.device("cuda", 0)) == "GPU-17"


@pytest.mark.parametrize(
    ("visible", "index", "expected"),
    [("4, 6", 1, "npu-6"), ("4,6", None, "npu-6"), ("4,6", 0, "npu-4"), (None, 2, "npu-2")],
)
def test_a_chip_without_uuid_is_known_by_its_physical_number(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, index: int | None, expected: str
) -> None:
    chips(monkeypatch)
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    # "meta" takes any index; which kind of device it is does not matter here.
    device = torch.device("meta") if index is None else torch.device("meta", index)
    assert device_ipc.physical_id(device) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_bucket_on_a_device_is_found_by_the_device() -> None:
    device = torch.device("cuda", 0)
    buffer = device_ipc.DeviceBuffer(device)
    buffer.reserve(100)
    assert list(buffer.handles()) == [device_ipc.physical_id(device)]
    with pytest.raises(RuntimeError, match="no weight buffer on device"):
        device_ipc.DevicePeer(device).open({"elsewhere": buffer.handles()})
