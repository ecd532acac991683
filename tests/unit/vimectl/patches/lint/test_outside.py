from __future__ import annotations

import os
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.hostile_series import HEADER, binary, create
from vimectl.patches.lint.linter import lint
from vimectl.patches.patchfile.reader import load


def test_fix_changes_no_file_behind_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other.patch"
    other.write_bytes((HEADER + create("toy/x"))[:-1])  # --fix adds the last line feed
    before = other.read_bytes()
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "one.patch").symlink_to(other)
    with pytest.raises(UsageError, match=r"one\.patch is a link"):
        lint([tmp_path / "series"], fix=True)
    assert other.read_bytes() == before


@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_pipes_and_devices_are_refused(target: str, tmp_path: Path) -> None:
    path = tmp_path / "one.patch"
    if target == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    with pytest.raises(UsageError, match=r"one\.patch: cannot be read: not a regular file"):
        load(path)


def test_binary_data_of_a_patch_is_bounded_together(tmp_path: Path) -> None:
    size = 20 * 2**20
    bomb = b"".join(binary(f"toy/{n}", "literal", bytes(size), size) for n in range(4))
    (tmp_path / "one.patch").write_bytes(HEADER + bomb)
    (report,) = lint([tmp_path / "one.patch"])
    assert "corrupt-binary" in {one.rule for one in report.findings}
    assert "the binary data of the patch is above" in str(report.findings)


def test_deeply_nested_mail_is_refused(tmp_path: Path) -> None:
    part = b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n'
    parts = b"".join(part % (number, number) for number in range(1500))
    (tmp_path / "one.eml").write_bytes(b"From 0\nSubject: x\nMIME-Version: 1.0\n" + parts + create("toy/x"))
    with pytest.raises(UsageError, match="nested too deeply"):
        lint([tmp_path / "one.eml"])
