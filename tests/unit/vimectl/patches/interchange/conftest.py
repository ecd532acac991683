"""Provide a repository with files of every kind as the release that patches are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.patches.git_and_quilt import committed

LINES = "".join(f"l{number}\n" for number in range(1, 31))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    package = tmp_path / "work" / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "a.py").write_text(LINES)
    (package / "crlf.txt").write_bytes(LINES.replace("\n", "\r\n").encode())
    (package / "run.sh").write_text(LINES)
    (package / "run.sh").chmod(0o755)
    (package / "link").symlink_to("a.py")
    (package / "data.bin").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "work" / "tests").mkdir()
    (tmp_path / "work" / "tests" / "test_a.py").write_text(LINES)
    return committed(tmp_path / "work")
