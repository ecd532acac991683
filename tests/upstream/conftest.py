"""The released wheels that the shipped series are for, and parts of them unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from vimectl import stack as stacks
from vimectl.patching import series
from vimectl.patching.series import Series

STACK = "cpu-0.32"
# What the stack's lock is made for; pip is told, so that any interpreter on any machine gets the same files.
PLATFORM = ["--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:"]


def _wheel(package: str, version: str) -> Path:
    """Return the released wheel of a package of the stack, downloaded once per user."""
    name = stacks.load(STACK).distributions(package)[0]
    cache = Path(platformdirs.user_cache_dir("vimectl")) / "wheels" / f"{name}-{version}"
    if not list(cache.glob("*.whl")):
        fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *PLATFORM, "-d", fresh]
        done = subprocess.run([*command, f"{name}=={version}"], capture_output=True, text=True)
        if done.returncode:
            reason = f"cannot download {name} {version}: {done.stderr.strip().splitlines()[-1:]}"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        shutil.rmtree(cache, ignore_errors=True)
        fresh.rename(cache)
    return next(cache.glob("*.whl"))


@pytest.fixture(scope="session")
def wheels() -> dict[str, Path]:
    """The wheel of each package that the CPU stack patches."""
    return {package: _wheel(package, version) for package, version in stacks.load(STACK).patches.items()}


@pytest.fixture(scope="session")
def shipped() -> dict[str, Series]:
    """The series of the CPU stack by package."""
    return {package: series.load(package, version) for package, version in stacks.load(STACK).patches.items()}


@pytest.fixture
def unpacked(wheels: dict[str, Path], shipped: dict[str, Series], tmp_path: Path) -> Path:
    """A directory with what matters of both wheels: the files to patch and the metadata, as released."""
    directory = tmp_path / "unpacked"
    for package, wheel in wheels.items():
        one = shipped[package]
        wanted = {*one.chains, f"{one.module}/__init__.py"}
        _unpack(wheel, directory, lambda name, wanted=wanted: name in wanted or ".dist-info/" in name)
    return directory


def _unpack(wheel: Path, directory: Path, wanted: Callable[[str], bool]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory, [name for name in archive.namelist() if wanted(name)])


@pytest.fixture(scope="session")
def unpack() -> Callable[[Path, Path, Callable[[str], bool]], None]:
    """Unpacks the files of a wheel whose name is wanted."""
    return _unpack
