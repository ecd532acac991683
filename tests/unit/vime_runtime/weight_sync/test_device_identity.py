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


def set_properties(monkeypatch: pytest.MonkeyPatch, **properties: str) -> None:
    """Replace the torch module of a device with one whose device has these properties."""
    module = SimpleNamespace(
        current_device=lambda: 1, get_device_properties=lambda index: SimpleNamespace(**properties)
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)


def uuid(index: int | None = None) -> str:
    # "meta" takes any index; which kind of device it is does not matter here.
    return device_identity.device_uuid(torch.device("meta") if index is None else torch.device("meta", index))


def create_nodes(directory: Path, **targets: str) -> None:
    """Link to device nodes of this machine, since creating some takes privileges."""
    for name, target in targets.items():
        (directory / name).symlink_to(target)


def test_devices_with_the_same_number_in_two_containers_differ_by_their_uuid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = []
    for given in ("17", "18"):
        set_properties(monkeypatch, uuid=given)
        ids.append(uuid(0))
    assert ids == ["npu b-1 0 17", "npu b-1 0 18"]


def test_two_dies_with_the_same_uuid_have_different_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    set_properties(monkeypatch, uuid="17")
    assert [uuid(0), uuid(1)] == ["npu b-1 0 17", "npu b-1 1 17"]


# torch_npu 2.9 has no uuid, and it is zero if the driver has none.
@pytest.mark.parametrize("properties", [{}, {"uuid": "00000000-0000-0000-0000-000000000000"}])
@pytest.mark.parametrize(
    ("visible", "index", "number"), [("4,6", 1, 6), ("4,6", None, 6), ("4,6", 0, 4), (None, 2, 2)]
)
def test_a_device_without_uuid_has_its_physical_number_as_id(
    monkeypatch: pytest.MonkeyPatch,
    properties: dict[str, str],
    visible: str | None,
    index: int | None,
    number: int,
) -> None:
    set_properties(monkeypatch, **properties)
    if visible is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    assert uuid(index) == " ".join([f"npu b-1 {number}", *properties.values()])


def test_two_containers_of_a_host_have_the_same_id_for_a_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_properties(monkeypatch)
    host, one = tmp_path / "host", tmp_path / "one"
    for directory in (host, one):
        directory.mkdir()
    create_nodes(
        host, davinci0="/dev/null", davinci1="/dev/zero", davinci10="/dev/full", davinci_manager="/dev/tty"
    )
    create_nodes(one, davinci3="/dev/zero", davinci4="/dev/full")  # two of the three, one with another name
    monkeypatch.setattr(device_identity, "DEVICES", host)
    names = [uuid(index) for index in range(3)]
    assert len(set(names)) == 3
    monkeypatch.setattr(device_identity, "DEVICES", one)
    assert [uuid(0), uuid(1)] == names[1:]
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1")  # counted within the container
    assert uuid(0) == names[2]


def test_two_hosts_have_different_ids_for_their_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_properties(monkeypatch)
    create_nodes(tmp_path, davinci0="/dev/null")
    here = uuid(0)
    monkeypatch.setattr(device_identity, "boot_id", lambda: "b-2")
    assert uuid(0) != here
