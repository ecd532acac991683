"""Make local git repositories in place of the real sources, and a stack that pins them.

The repositories are small ones for Megatron-LM and MindSpeed. The one of the memory saver has its setup.py
where the real one has it. It compiles nothing and packs libraries that were made by hand: ELF files that say
they are linked with CANN's runtime, and do nothing.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from harness import REPOSITORY
from harness.git import commit, git
from harness.images import fake_base
from harness.memory_saver.elf_file import ASCEND_PRELOAD, TORCH_MODE, ElfFile
from harness.wheels import write_wheel
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.catalog import stack_file as stack_path

MACHINE = platform.machine()
# What is built from source, the distribution that comes out, and its module.
PACKAGES = {
    "megatron-lm": ("megatron-core", "megatron/core"),
    "mindspeed": ("mindspeed", "mindspeed"),
}
_PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"

[tool.setuptools]
packages = ["{package}"]
"""
_SAVER_SETUP = """\
import os, pathlib, shutil
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

library = pathlib.Path(os.environ["ASCEND_TOOLKIT_HOME"], "lib64", "libascendcl.so")
if not library.is_file():
    raise SystemExit("/usr/bin/ld: cannot find -lascendcl")

class Copy(build_ext):
    def build_extension(self, extension):
        target = pathlib.Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"made/{target.name}", target)

setup(
    name="torch_memory_saver",
    version="0.0.8",
    packages=["torch_memory_saver"],
    cmdclass={"build_ext": Copy},
    ext_modules=[
        Extension(f"torch_memory_saver_hook_mode_{mode}", ["not-compiled.cpp"], py_limited_api=True)
        for mode in ("torch", "preload")
    ],
)
"""
# Packages that only install vimectl itself.
_NOT_IN_LOCK = {"pip", "hatchling", "editables", "pathspec", "pluggy", "trove-classifiers"}


@dataclass(frozen=True)
class Repository:
    url: str
    commit: str


def stack_file(folder: Path, needed: Sequence[str] = ("libascendcl.so", "libc.so.6")) -> Path:
    """Make the repositories and a stack file: ``ascend-0.22`` with these as its pins. Returns the file.

    ``needed`` is what the memory saver's library is linked with.
    """
    text = stack_path(fake_base.STACK).read_text(encoding="utf-8")
    stack = load_stack(fake_base.STACK)
    for name, pin in stack.commits.items():
        made = _package(folder / name, *PACKAGES[name], pin.version)
        text = text.replace(pin.url, made.url).replace(pin.commit, made.commit)
    saver = stack.memory_saver
    assert saver is not None
    made = _saver(folder / "sgl-kernel-npu", list(saver.left_out), needed)
    text = text.replace(saver.url, made.url).replace(saver.commit, made.commit)
    # The fake base has the Python of Debian 12.
    text = re.sub(r'^python = "3\.12"$', 'python = "3.11"', text, flags=re.MULTILINE)
    text = re.sub(r'^glibc = "2\.35"$', 'glibc = "2.36"', text, flags=re.MULTILINE)
    file = folder / "stand-in.toml"
    file.write_text(text, encoding="utf-8")
    file.with_suffix(".txt").write_text(_lock(), encoding="utf-8")
    return file


def _package(folder: Path, name: str, package: str, version: str) -> Repository:
    init = f'"""A fake {name}."""\n'.encode()
    fields = {"name": name, "package": package.replace("/", "."), "version": version}
    pyproject = _PYPROJECT.format(**fields).encode()
    return _repository(folder, {"pyproject.toml": pyproject, f"{package}/__init__.py": init})


def _saver(folder: Path, submodules: Sequence[str], needed: Sequence[str]) -> Repository:
    python = folder / "contrib" / "torch_memory_saver" / "python"
    for name, content in _saver_files(needed).items():
        path = python / ("made" if name.endswith(".so") else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (python / "setup.py").write_text(_SAVER_SETUP)
    git(folder, "init", "-q")
    for submodule in submodules:
        (folder / submodule).mkdir(parents=True)
        git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{submodule}")
    return _committed(folder)


def saver_wheel(folder: Path, needed: Sequence[str]) -> None:
    """Write a wheel of the memory saver whose libraries are linked with ``needed``."""
    write_wheel(folder, "torch_memory_saver", "0.0.8", _saver_files(needed), f"cp39-abi3-linux_{MACHINE}")


def _saver_files(needed: Sequence[str]) -> dict[str, bytes]:
    stem = "torch_memory_saver_hook_mode"
    return {
        "torch_memory_saver/__init__.py": b"",
        "torch_memory_saver/utils.py": b"",
        f"{stem}_torch.abi3.so": ElfFile(MACHINE, needed, TORCH_MODE).content(),
        f"{stem}_preload.abi3.so": ElfFile(MACHINE, needed, ASCEND_PRELOAD).content(),
    }


def _repository(folder: Path, files: dict[str, bytes]) -> Repository:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return _committed(folder)


def _committed(folder: Path) -> Repository:
    made = commit(folder)
    # Fetched by commit id, like the real ones.
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return Repository(folder.absolute().as_uri(), made)


def _lock() -> str:
    """Return the lock of vimectl's dependencies for the Python of the fake base."""
    kept = []
    joined = (REPOSITORY / "requirements" / "tool.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    environment = {"python_version": "3.11", "python_full_version": "3.11.2", "sys_platform": "linux"}
    for line in joined.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text, _, hashes = line.partition(" --hash")
        requirement = Requirement(text.strip())
        fits = requirement.marker is None or requirement.marker.evaluate(environment)
        if fits and requirement.name not in _NOT_IN_LOCK:
            kept.append(f"{requirement.name}{requirement.specifier} --hash{hashes}")
    return "\n".join(kept) + "\n"
