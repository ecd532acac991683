"""Where the dynamic loader searches, on described machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor.facts.loader import (
    find_library,
    is_preloadable,
    is_same_file,
    read_library_directories,
)
from vimectl.util.host import Host


def write(root: Path, path: str, text: str = "") -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_variable_goes_before_the_files_and_those_before_the_defaults(tmp_path: Path) -> None:
    write(tmp_path, "/etc/ld.so.conf", "include ld.so.conf.d/*.conf  # all\n/opt/last /opt/lib64\n")
    write(tmp_path, "/etc/ld.so.conf.d/b.conf", "/opt/b\ninclude /etc/more.conf\nhwcap 1 nosegneg\n")
    write(tmp_path, "/etc/ld.so.conf.d/a.conf", "# comment\n/opt/a:/opt/a2\nrelative\n")
    write(tmp_path, "/etc/more.conf", "/opt/more\n")
    (tmp_path / "usr/lib/aarch64-linux-gnu").mkdir(parents=True)
    host = Host(tmp_path, {"LD_LIBRARY_PATH": "/opt/cann/lib64/::/opt/atb"})
    assert read_library_directories(host) == (
        *("/opt/cann/lib64", "/opt/atb", "/opt/a", "/opt/a2", "/opt/b", "/opt/more", "/opt/last"),
        *("/opt/lib64", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"),
    )


def test_file_that_includes_itself_ends(tmp_path: Path) -> None:
    write(tmp_path, "/etc/ld.so.conf", "/opt/a\ninclude /etc/ld.so.conf\n")
    assert read_library_directories(Host(tmp_path, {}))[0] == "/opt/a"


def test_first_library_is_found_and_a_directory_is_none(tmp_path: Path) -> None:
    host = Host(tmp_path, {"LD_LIBRARY_PATH": "/opt/a:/opt/b:/opt/c"})
    (tmp_path / "opt/a/libatb.so").mkdir(parents=True)
    write(tmp_path, "/opt/c/libatb.so")
    assert find_library(host, "libatb.so") == "/opt/c/libatb.so"
    (tmp_path / "opt/b").symlink_to("/opt/c")
    assert find_library(host, "libatb.so") == "/opt/b/libatb.so"
    assert is_same_file(host, "/opt/b/libatb.so", "/opt/c/libatb.so")
    assert not is_same_file(host, "/opt/b/libatb.so", "/opt/none")
    assert find_library(host, "libhccl.so") == ""


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/usr/lib/$PLATFORM-linux-gnu/libjemalloc.so.2", True),
        ("/usr/${LIB}/libjemalloc.so.2", True),
        ("/usr/$LIB/libtcmalloc.so.4", False),
        ("$ORIGIN/../lib/liba.so", True),
        ("/usr/lib/libjemalloc.so.2", False),
    ],
)
def test_tokens_of_the_loader_are_expanded(tmp_path: Path, path: str, there: bool) -> None:
    write(tmp_path, "/usr/lib/aarch64-linux-gnu/libjemalloc.so.2")
    assert is_preloadable(Host(tmp_path, {}), path) is there
