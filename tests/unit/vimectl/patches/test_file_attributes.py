from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement

from vimectl.patches import command, file_attributes
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import PatchTarget

ACL, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL of (tag, permissions, id), see linux/posix_acl_xattr.h."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NO_ID = 0xFFFFFFFF
ENTRIES = ((0x01, 6, NO_ID), (0x02, 6, 4711), (0x04, 4, NO_ID), (0x10, 6, NO_ID), (0x20, 4, NO_ID))
OPEN = ((0x01, 7, NO_ID), (0x02, 7, 4711), (0x04, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 5, NO_ID))


def xattrs(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.fixture
def path(location: Path) -> Path:
    """Return a file with an ACL and an attribute of the user, on a file system that has both."""
    path = location / "toy" / "both.py"
    try:
        os.setxattr(path, ACL, acl(*ENTRIES))
        os.setxattr(path, "user.note", b"kept")
    except OSError as e:
        pytest.skip(f"no ACLs here: {e}")
    return path


def test_acl_and_attributes_survive_apply_and_revert(
    path: Path, target: PatchTarget, toy_series: Series
) -> None:
    before, mode = xattrs(path), path.stat().st_mode
    for action in ("apply", "revert"):
        command.change(action, [classify(target, toy_series)])
        assert (xattrs(path), path.stat().st_mode) == (before, mode), action


def test_new_file_inherits_the_default_acl_of_its_folder(
    path: Path, target: PatchTarget, toy_series: Series
) -> None:
    os.setxattr(path.parent, DEFAULT, acl(*OPEN))
    (path.parent / "reference").touch()
    command.change("apply", [classify(target, toy_series)])
    assert xattrs(path.parent / "new.py") == xattrs(path.parent / "reference")
    assert (path.parent / "new.py").stat().st_mode == (path.parent / "reference").stat().st_mode


def test_default_acl_of_the_target_does_not_reach_other_files(
    path: Path, target: PatchTarget, toy_series: Series
) -> None:
    os.setxattr(target.location, DEFAULT, acl(*OPEN))
    before = {one: (xattrs(one), one.stat().st_mode) for one in path.parent.iterdir()}
    command.change("apply", [classify(target, toy_series)])
    assert xattrs(path.parent / "new.py") == {}
    command.change("revert", [classify(target, toy_series)])
    assert {one: (xattrs(one), one.stat().st_mode) for one in path.parent.iterdir()} == before


def test_attribute_that_only_root_may_set_is_reported(
    path: Path, target: PatchTarget, toy_series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = file_attributes.attributes_of

    def with_label(descriptor: int) -> file_attributes.FileAttributes:
        attributes = found(descriptor)
        return attributes._replace(xattrs={**attributes.xattrs, "trusted.label": b"x"})

    def refuse(descriptor: int, name: str, value: bytes) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr("vimectl.patches.transaction.attributes_of", with_label)
    monkeypatch.setattr("os.setxattr", refuse)
    os.removexattr(path, ACL)
    os.removexattr(path, "user.note")
    lost = command.change("apply", [classify(target, toy_series)]).lost
    assert f"{path}: the attribute trusted.label could not be kept" in lost


def test_file_whose_acl_cannot_be_kept_is_not_replaced(
    path: Path, target: PatchTarget, toy_series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, name: str, value: bytes) -> None:
        raise OSError(95, "Operation not supported")

    before = path.read_bytes()
    monkeypatch.setattr("os.setxattr", refuse)
    with pytest.raises(MissingRequirement, match="cannot prepare the change"):
        command.change("apply", [classify(target, toy_series)])
    assert path.read_bytes() == before


def test_files_without_support_for_attributes_are_patched(
    target: PatchTarget, toy_series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    for name in ("listxattr", "getxattr", "setxattr", "removexattr"):
        monkeypatch.setattr(os, name, unsupported)
    outcome = command.change("apply", [classify(target, toy_series)])
    assert [one.state for one in outcome.targets] == ["applied"]
