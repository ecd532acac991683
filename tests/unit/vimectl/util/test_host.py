from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.util.host import Host


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("usr/local/latest", "/usr/local/9.0"),
        ("usr/local/latest", "9.0"),
        ("usr/local/latest", "../../../../usr/local/9.0"),
    ],
)
def test_symlinks_of_another_root_stay_in_it(tmp_path: Path, link: str, target: str) -> None:
    (tmp_path / "usr/local/9.0").mkdir(parents=True)
    (tmp_path / "usr/local/9.0/version").write_text("9.0.0")
    (tmp_path / link).symlink_to(target)
    assert Host(tmp_path).read("/usr/local/latest/version") == "9.0.0"


def test_another_root_has_no_files_of_the_running_machine(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").write_text("of the running machine")
    (tmp_path / "root/file").symlink_to(tmp_path / "outside")
    assert Host(tmp_path / "root").read("/file") is None
    assert Host(tmp_path / "root").read("/../../outside") is None


def test_symlink_to_itself_has_no_content(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("/loop")
    assert Host(tmp_path).read("/loop") is None


def test_files_of_the_kernel_are_read() -> None:
    assert Host().read("/proc/sys/vm/overcommit_memory") in ("0\n", "1\n", "2\n")


@pytest.mark.parametrize(
    ("content", "problem", "text"),
    [
        (b"caf\xe9", "not UTF-8 text", "caf\ufffd"),
        ("caf\ufffd".encode(), "", "caf\ufffd"),
        (b"a\x1b[31mb", "has control characters", "a\x1b[31mb"),
        (b"1" * 5000, "has a number of more than 1000 digits", None),
    ],
)
def test_text_that_is_none_is_observed(
    tmp_path: Path, content: bytes, problem: str, text: str | None
) -> None:
    (tmp_path / "file").write_bytes(content)
    observed: dict[str, str] = {}
    host = Host(tmp_path, observe=observed.__setitem__)
    assert host.read("/file") == text
    assert observed == {"/file": problem}
