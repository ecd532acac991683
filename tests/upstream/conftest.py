"""The released wheels that the shipped series are for, and parts of them unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.upstream import released
from vimectl.patches import series
from vimectl.patches.series import Series
from vimectl.stacks.catalog import load_stack

STACK = "cpu-0.32"


@pytest.fixture(scope="session")
def wheels() -> dict[str, Path]:
    """The wheel of each package that the CPU stack patches."""
    stack = load_stack(STACK)
    patched = stack.patches.items()
    return {package: released.wheel(stack.distributions(package)[0], version) for package, version in patched}


@pytest.fixture(scope="session")
def shipped() -> dict[str, Series]:
    """The series of the CPU stack by package."""
    return {package: series.load(package, version) for package, version in load_stack(STACK).patches.items()}


@pytest.fixture
def unpacked(wheels: dict[str, Path], shipped: dict[str, Series], tmp_path: Path) -> Path:
    """A directory with what matters of both wheels: the files to patch and the metadata, as released."""
    directory = tmp_path / "unpacked"
    for package, wheel in wheels.items():
        one = shipped[package]
        wanted = {*one.chains, f"{one.module}/__init__.py"}
        released.unpack(wheel, directory, lambda name, wanted=wanted: name in wanted or ".dist-info/" in name)
    return directory


@pytest.fixture(scope="session")
def unpack() -> Callable[[Path, Path, Callable[[str], bool]], None]:
    """Unpacks the files of a wheel whose name is wanted."""
    return released.unpack


@pytest.fixture(scope="session")
def unpack_release() -> Callable[..., None]:
    """Unpacks a release into a directory: all of it as it was released, or the files whose name is wanted."""
    return released.unpack_release


@pytest.fixture(scope="session")
def python_sources() -> Callable[[str, str], Path]:
    """Where Python files and metadata of a release lie unpacked, once per user and not to be changed."""
    return released.python_sources
