from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from vime_runtime.weight_sync import device_identity


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without device nodes, and with one boot."""
    monkeypatch.setattr(device_identity, "DEVICES", tmp_path)
    monkeypatch.setattr(device_identity, "boot_id", lambda: "b-1")
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)


def chips(monkeypatch: pytest.MonkeyPatch, **properties: str) -> None:
    """Stand in for a device's torch module, which this machine need not have."""
    module = SimpleNamespace(
        current_device=lambda: 1, get_device_properties=lambda index: SimpleNamespace(**properties)
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)


def chip(index: int | None = None) -> str:
    # "meta" takes any index; which kind of device it is does not matter here.
    return device_identity.chip_id(torch.device("meta") if index is None else torch.device("meta", index))


def nodes(directory: Path, **targets: str) -> None:
    """Device nodes: links to ones of this machine, since making some takes privileges."""
    for name, target in targets.items():
        (directory / name).symlink_to(target)


def test_a_chip_is_known_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    chips(monkeypatch, uuid="GPU-17")
    assert chip(0) == "GPU-17"


@pytest.mark.parametrize("properties", [{}, {"uuid": ""}, {"uuid": "00000000-0000-0000-0000-000000000000"}])
@pytest.mark.parametrize(
    ("visible", "index", "expected"),
    [("4,6", 1, "npu b-1 6"), ("4,6", None, "npu b-1 6"), ("4,6", 0, "npu b-1 4"), (None, 2, "npu b-1 2")],
)
def test_a_chip_without_uuid_is_known_by_its_physical_number(
    monkeypatch: pytest.MonkeyPatch,
    properties: dict[str, str],
    visible: str | None,
    index: int | None,
    expected: str,
) -> None:
    chips(monkeypatch, **properties)
    if visible is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    assert chip(index) == expected


def test_two_containers_of_a_host_know_a_chip_by_the_same_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chips(monkeypatch)
    host, one = tmp_path / "host", tmp_path / "one"
    for directory in (host, one):
        directory.mkdir()
    nodes(host, davinci0="/dev/null", davinci1="/dev/zero", davinci10="/dev/full", davinci_manager="/dev/tty")
    nodes(one, davinci3="/dev/zero", davinci4="/dev/full")  # two of the three, one with another name
    monkeypatch.setattr(device_identity, "DEVICES", host)
    names = [chip(index) for index in range(3)]
    assert len(set(names)) == 3
    monkeypatch.setattr(device_identity, "DEVICES", one)
    assert [chip(0), chip(1)] == names[1:]
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1")  # counted within the container
    assert chip(0) == names[2]


def test_two_hosts_know_their_chips_by_different_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chips(monkeypatch)
    nodes(tmp_path, davinci0="/dev/null")
    here = chip(0)
    monkeypatch.setattr(device_identity, "boot_id", lambda: "b-2")
    assert chip(0) != here
