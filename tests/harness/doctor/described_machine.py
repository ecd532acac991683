"""Build the machines of the gallery, `machines/*.toml`: a root directory, an environment, the output of
commands, and the expected report of the doctor.

A machine starts from another one (``base``) and lists the differences. The expected report is complete: every
check that is not named in ``[expect]`` must pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from pydantic import Field
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.strict import Strict

from harness import TESTS
from harness.doctor import sparse_model
from harness.memory_saver.elf_file import ElfFile
from vimectl.doctor.check import CheckResult
from vimectl.doctor.facts.imports import PROGRAM
from vimectl.doctor.runner import DoctorReport, run_checks
from vimectl.patches import series
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack, lock_path
from vimectl.stacks.lock import read_lock
from vimectl.util import toml
from vimectl.util.host import CommandResult, Host, refuse_command

# Machines, patches and outputs of commands are there.
GALLERY = TESTS / "unit" / "vimectl" / "doctor" / "gallery"
# Every file of a machine is of this moment, and its clock a day later unless it says otherwise.
INSTALLED = 1_790_000_000
# Where the user of a machine keeps the builds of the memory saver that are known there.
CONFIG = "/home/user/.config"


class Answer(Strict):
    """The result of a command; ``file`` is a file of the gallery that has its output."""

    code: int = 0
    stdout: str = ""
    stderr: str = ""
    file: str | None = None


class Release(Strict):
    """A package with a series in the gallery's `patches`, in small, and the state it is in."""

    state: Literal["applied", "pristine", "drifted"]
    place: str | None = None  # the checkout of an editable install; else among the installed packages


class Library(Strict):
    """A torch_memory_saver library, made in small; and how it is known: in full, by a prefix, or not."""

    machine: str = "aarch64"
    needed: list[str] = Field(default_factory=lambda: ["libascendcl.so", "libc.so.6"])
    known: Literal["good", "prefix"] | None = None


class Elf(Strict):
    """A shared library, made in small: its machine, the libraries that it needs, and symbol versions."""

    machine: str = "aarch64"
    needed: list[str] = Field(default_factory=lambda: ["libc.so.6"])
    versions: list[str] = Field(default_factory=list)


class Expect(Strict):
    """The expected report. ``fail`` and ``warn`` map the id of a check to a part of what it must find."""

    first: str = ""  # the check to fix first
    fail: dict[str, str] = Field(default_factory=dict)
    warn: dict[str, str] = Field(default_factory=dict)
    fix: dict[str, str] = Field(default_factory=dict)  # a part of the fix of these checks
    cause: dict[str, str] = Field(default_factory=dict)  # the check from which these follow; else from none
    # Ids, or patterns of them. They also apply to the machines that start from this one.
    skip: list[str] = Field(default_factory=list)
    passes: list[str] = Field(default_factory=list)  # passes, but is skipped on the base


class Described(Strict):
    """A machine file. All but ``about``, ``base`` and ``expect`` is added to the base."""

    about: str
    base: str | None = None
    stack: str | None = None
    recipe: str | None = None
    without_recipe: bool = False  # check the stack only, even if the base has a recipe
    set: list[str] = Field(default_factory=list)  # KEY=VALUE of the recipe
    lock: str | None = None  # install every package of this stack's lock
    site: str | None = None  # where packages are installed
    image: bool = False  # an unpacked image: nothing runs, no environment
    remove: list[str] = Field(default_factory=list)  # patterns of files and folders of the base
    unset: list[str] = Field(default_factory=list)  # variables of the base
    nodes: list[str] = Field(default_factory=list)  # device nodes in /dev
    mode: str = "660 0 1000 HwHiAiUser"  # of the device nodes: mode, user, group, its name
    environment: dict[str, str] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)  # distribution to version; "" removes it
    requires: dict[str, list[str]] = Field(default_factory=dict)  # distribution to its requirements
    files: dict[str, str] = Field(default_factory=dict)  # path to text; {inode:PATH} is a number
    releases: dict[str, Release] = Field(default_factory=dict)  # "vllm/0.22.1" to its state
    folders: list[str] = Field(default_factory=list)  # empty ones
    libraries: dict[str, Library] = Field(default_factory=dict)  # path to a memory saver
    elf: dict[str, Elf] = Field(default_factory=dict)  # path to another shared library
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)  # path to what differs from Qwen3-4B
    links: dict[str, str] = Field(default_factory=dict)
    disks: dict[str, list[int]] = Field(default_factory=dict)  # path to size and free, in MiB
    commands: dict[str, Answer] = Field(default_factory=dict)  # command line, or a pattern of it
    imports: dict[str, str] = Field(default_factory=dict)  # module to an error, or "SIGSEGV", "hangs"
    expect: Expect = Field(default_factory=Expect)


def names() -> list[str]:
    """The machines of the gallery."""
    return sorted(path.stem for path in (GALLERY / "machines").glob("*.toml"))


def lineage(name: str) -> list[Described]:
    """A machine's description after those it starts from."""
    one = toml.load(Described, GALLERY / "machines" / f"{name}.toml")
    return [*(lineage(one.base) if one.base else []), one]


class Description:
    """The description of a machine, after those that it starts from."""

    def __init__(self, name: str) -> None:
        self.lineage = lineage(name)

    @property
    def stack(self) -> str:
        """The stack that the machine is checked for."""
        if name := self.last("stack"):
            return str(name)
        recipe = self.recipe()
        assert recipe
        return recipe.recipe.stack

    def last(self, field: str) -> Any:
        """Return a field of the most derived description that has it."""
        return next((value for one in reversed(self.lineage) if (value := getattr(one, field))), None)

    def recipe(self, assignments: Sequence[str] = ()) -> Recipe | None:
        name = None if self.last("without_recipe") else self.last("recipe")
        own = [assignment for one in self.lineage for assignment in one.set]
        return resolve(name, assignments=[*own, *assignments]).recipe if name else None

    def expected(self, check: str) -> tuple[str, str]:
        """Return the expected status of a check, and a part of what it must find."""
        expect = self.lineage[-1].expect
        if check in expect.fail:
            return "fail", expect.fail[check]
        if check in expect.warn:
            return "warn", expect.warn[check]
        for one in reversed(self.lineage):
            if _in(check, one.expect.passes):
                return "pass", ""
            if _in(check, one.expect.skip):
                return "skip", ""
        return "pass", ""


class Machine(Description):
    """A described machine, made in a directory."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name)
        self.root = root.resolve()
        self.environment: dict[str, str] = {}
        self.commands: dict[str, CommandResult] = {}
        self.imports: dict[str, str] = {}
        self.mode: str = self.last("mode")
        for one in self.lineage:
            self._add(one)
        self._age()

    @property
    def host(self) -> Host:
        image = self.last("image")
        return Host(self.root, {} if image else self.environment, refuse_command if image else self._run)

    def differences(self, report: DoctorReport) -> list[str]:
        """Return the differences between a report and the expected one."""
        expect = self.lineage[-1].expect
        wrong = []
        for result in report.results:
            wanted, part = self.expected(result.id)
            if result.status != wanted or part not in result.found:
                wrong.append(f"{result.id}: {result.status} {result.found!r}, expected {wanted} {part!r}")
            if expect.fix.get(result.id, "") not in result.fix:
                wrong.append(f"{result.id}: fix {result.fix!r}, expected {expect.fix[result.id]!r}")
            if result.cause != expect.cause.get(result.id, ""):
                wrong.append(
                    f"{result.id}: follows from {result.cause!r}, expected {expect.cause.get(result.id)!r}"
                )
        known = {result.id for result in report.results}
        wrong += [f"{name}: no such check" for name in {*expect.fail, *expect.warn} - known]
        first = report.first.id if report.first else ""
        if first != expect.first:
            wrong.append(f"first is {first!r}, expected {expect.first!r}")
        return wrong

    def examine(
        self, only: Sequence[str] = (), assignments: Sequence[str] = (), without: Sequence[str] = ()
    ) -> DoctorReport:
        """Return the doctor's report, with the checks that import packages."""
        recipe = self.recipe(assignments)
        own = {"XDG_CONFIG_HOME": str(self.path(CONFIG))}
        with patch.object(series, "data_dir", GALLERY.joinpath), patch.dict(os.environ, own):
            stack = load_stack(self.stack)
            return run_checks(self.host, stack, recipe, only, with_imports=True, without=without)

    def check(self, id: str, *assignments: str) -> CheckResult:
        """Return the result of one check, with the recipe changed by ``assignments``."""
        (result,) = self.examine([id], assignments).results
        return result

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str = "") -> None:
        """Write a file of the machine, with the folders above it."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _inode(self, path: str) -> str:
        return str(self.path(path).stat().st_ino)

    def _add(self, one: Described) -> None:
        site = self.last("site")
        for pattern in one.remove:
            for path in list(self.root.glob(pattern.lstrip("/"))):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name in one.unset:
            self.environment.pop(name, None)
        for node in one.nodes:
            self.write(f"/dev/{node}", "")
        if one.lock:
            for pin in read_lock(lock_path(one.lock)).values():
                self._install(pin.name, pin.version, site)
        for name, version in one.packages.items():
            self._install(name, version, site)
        for name, requirements in one.requires.items():
            self._require(name, requirements, site)
        for release, how in one.releases.items():
            self._release(*release.split("/"), how, site)
        for path, library in one.libraries.items():
            self._library(path, library)
        for path, elf in one.elf.items():
            self.write(path, "")
            names = b"".join(version.encode() + b"\0" for version in elf.versions)
            self.path(path).write_bytes(ElfFile(elf.machine, elf.needed, text=names).content())
        for path, changes in one.models.items():
            sparse_model.write(self.path(path), changes)
        for path, text in one.files.items():
            self.write(path, re.sub(r"\{inode:(.*?)\}", lambda found: self._inode(found[1]), text))
        for path, target in one.links.items():
            self.path(path).parent.mkdir(parents=True, exist_ok=True)
            self.path(path).symlink_to(target)
        for path in one.folders:
            self.path(path).mkdir(parents=True, exist_ok=True)
        self.environment |= one.environment
        for path, (size, free) in one.disks.items():
            self.commands[f"df -Pk {path}"] = CommandResult(0, _df(path, size, free))
        for command, answer in one.commands.items():
            text = (GALLERY / answer.file).read_text() if answer.file else answer.stdout
            self.commands[command] = CommandResult(answer.code, text, answer.stderr)
        self.imports |= one.imports

    def _install(self, name: str, version: str, site: str) -> None:
        escaped = name.replace("-", "_")
        for folder in self.path(site).glob(f"{escaped}-*.dist-info"):
            shutil.rmtree(folder)
        if version:
            folder = f"{site}/{escaped}-{version}.dist-info"
            self.write(f"{folder}/INSTALLER", "pip\n")
            self.write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            self.write(f"{folder}/RECORD", f"{folder.rpartition('/')[2]}/METADATA,,\n")

    def _require(self, name: str, requirements: list[str], site: str) -> None:
        (folder,) = self.path(site).glob(f"{name.replace('-', '_')}-*.dist-info")
        with (folder / "METADATA").open("a") as file:
            file.writelines(f"Requires-Dist: {one}\n" for one in requirements)

    def _release(self, package: str, version: str, how: Release, site: str) -> None:
        module = toml.read_toml(GALLERY / "patches" / package / version / "series.toml")["module"]
        place = how.place or site
        strict = {"applied": "False", "pristine": "True", "drifted": "None"}[how.state]
        self.write(f"{place}/{module}/__init__.py", "")
        self.write(
            f"{place}/{module}/start.py", f'"""Stands for {package} {version}."""\n\nstrict = {strict}\n'
        )
        escaped = package.replace("-", "_")
        (folder,) = (
            path
            for name in (escaped, f"{escaped}_cpu")
            for path in self.path(site).glob(f"{name}-{version}*.dist-info")
        )
        if not how.place:
            (folder / "RECORD").write_text(f"{module}/__init__.py,,\n{module}/start.py,,\n")
        else:
            stated = {"url": f"file://{place}", "dir_info": {"editable": True}}
            (folder / "direct_url.json").write_text(json.dumps(stated))
            (folder / "RECORD").write_text(f"{folder.name}/METADATA,,\n")

    def _library(self, path: str, library: Library) -> None:
        content = ElfFile(machine=library.machine, needed=library.needed).content()
        self.write(path, "")
        self.path(path).write_bytes(content)
        if library.known is None:
            return
        by = f'sha256 = "{hashlib.sha256(content).hexdigest()}"'
        if library.known == "prefix":
            by = f'md5_prefix = "{hashlib.md5(content).hexdigest()[:8]}"'
        entry = f'name = "{path}"\nverdict = "known-good"\nbackend = "ascend"\n{by}\nnote = "described"\n'
        self.write(f"{CONFIG}/vimectl/builds.toml", f"[[build]]\n{entry}")

    def _age(self) -> None:
        for path in self.root.rglob("*"):
            os.utime(path, (INSTALLED, INSTALLED), follow_symlinks=False)

    def _run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        line = " ".join(argv)
        if argv[:3] == ["python3", "-c", PROGRAM]:
            return self._import(argv[4:], timeout)
        if argv[0] == "stat":
            return CommandResult(0, "".join(f"{self.mode} eb:0 {path}\n" for path in argv[4:]))
        for command, answer in reversed(self.commands.items()):
            if line == command or fnmatchcase(line, command):
                return answer
        return CommandResult(127, "", f"{argv[0]}: not found")

    def _import(self, modules: Sequence[str], timeout: float) -> CommandResult:
        """Answer like the child process that imports these modules."""
        said = ""
        for name in modules:
            trouble = self.imports.get(name)
            if trouble == "SIGSEGV":
                return CommandResult(-11, said)
            if trouble == "hangs":
                return CommandResult(124, said, f"python3: no answer within {timeout:g} s")
            outcome = [name, trouble is not None, trouble or f"/site/{name} in 1.0 s"]
            said += f"vimectl-import {json.dumps(outcome)}\n"
        return CommandResult(0, said)


def _in(check: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(check, pattern) for pattern in patterns)


def _df(path: str, size: int, free: int) -> str:
    header = "Filesystem 1024-blocks Used Available Capacity Mounted on"
    return f"{header}\nnone {size * 1024} {(size - free) * 1024} {free * 1024} 1% {path}\n"
