"""Requirements of a test on the machine: `@pytest.mark.needs("tmux")`.

A missing tool fails the test where CI is set, because CI installs every tool, and skips it elsewhere. Missing
hardware skips it everywhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

PROGRAMS = ("buildah", "chromium", "debootstrap", "fish", "openssl", "quilt", "tmux", "zsh")


def unavailable(reason: str) -> NoReturn:
    """Fail in CI, else skip: a tool, a permission or the network is missing."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def require(name: str) -> None:
    """Check one requirement of a test.

    Args:
        name: a program in ``PROGRAMS``, "root", "gpu", or "network". The network is not checked here: what a
            test fetches may be in the user's cache, and the functions that fetch it call ``unavailable``.
    """
    if name in PROGRAMS:
        if shutil.which(name) is None:
            unavailable(f"{name} is not installed: apt-get install {name}")
    elif name == "root":
        if os.geteuid() != 0:
            unavailable("only root may do this")
    elif name == "gpu":
        if not _has_gpu():
            pytest.skip("needs a GPU and torch_memory_saver")
    elif name != "network":
        pytest.fail(f"unknown requirement {name!r}")


@contextmanager
def mounted_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of ``size`` (as mount(8) takes it) in memory at ``directory``; needs root."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        unavailable(f"cannot mount a file system: {done.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)  # files may still be open


def _has_gpu() -> bool:
    if find_spec("torch") is None or find_spec("torch_memory_saver") is None:
        return False
    import torch

    return torch.cuda.is_available()
