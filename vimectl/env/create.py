"""Create, resume or update the virtual environment of a stack."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import platformdirs
from packaging.utils import canonicalize_name
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, UsageError
from vime_runtime.spec.regular_files import open_regular

from vimectl.env import bytecode, site_packages, source_builds, vimectl_wheel
from vimectl.env.installer import UvInstaller
from vimectl.env.interpreter import find_interpreter
from vimectl.env.memory_saver.pinned_build import check_built, record_built
from vimectl.stacks.catalog import load_stack, lock_path, stack_names
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches
from vimectl.util.directory_lock import check_in_place, explain_disk_errors, lock_directory
from vimectl.util.host import Host
from vimectl.util.phase_progress import PhaseProgress, ReportPhase
from vimectl.util.subprocess import run_logged

# Marks a directory as created by vimectl.
STATE_FILE = ".vimectl-env.json"
# The folder of the downloads, until the environment is complete.
WORK_DIR = ".vimectl-env"
_MAX_STATE = 2**20


@dataclass(frozen=True)
class EnvironmentState:
    """The contents of the state file.

    ``packages`` (name to version) and ``tool`` (which vimectl) describe the last complete state. ``pending``
    has the packages that an interrupted update may have left half installed.
    """

    stack: str
    lock: str
    phase: Literal["creating", "updating", "complete"]
    packages: dict[str, str] = field(default_factory=dict)
    tool: str = ""
    pending: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CreatedEnvironment:
    """The result of ``create_environment``.

    ``installed`` counts the packages that this call installed; ``left_out`` says what the environment is made
    without, and how to get that.
    """

    directory: Path
    stack: str
    python: Path
    packages: int
    installed: int
    seconds: float
    left_out: list[str] = field(default_factory=list)


def create_environment(directory: Path, stack: Stack, lock: Path, report: ReportPhase) -> CreatedEnvironment:
    """Make ``directory`` a virtual environment that holds exactly the lock of a stack, and this vimectl.

    An interrupted call is resumed; for a complete environment the call returns at once.

    Raises:
        UsageError: vimectl did not create the directory, or it holds another stack.
        MissingRequirement: there is no matching interpreter, no source has a package, or something that a
            build from source needs is missing.
        CheckFailed: uv failed, a file has another digest than the lock's, or the result does not verify.
    """
    began = time.monotonic()
    host = Host()
    source_builds.check_requirements(stack, host)
    directory = directory.absolute()
    existed = directory.exists()
    waiting = PhaseProgress(f"waiting for another `vimectl env create` in {directory}")
    lock_context = lock_directory(directory, lambda: report(waiting), foreign_entries)
    disk_hint = "free some space, or name a directory on another disk; the same command then resumes"
    try:
        with lock_context as lock_fd, explain_disk_errors(directory, disk_hint):
            build = _EnvironmentBuild(directory, stack, lock, report, lock_fd)
            installed = build.run()
    finally:
        if not existed:
            with suppress(OSError):  # not empty: an environment was created
                directory.rmdir()
    seconds = time.monotonic() - began
    left_out = source_builds.left_out(stack, build.pins, build.uv.python, host)
    count = len(build.pins) + len(build.commits)
    return CreatedEnvironment(directory, stack.name, build.uv.python, count, installed, seconds, left_out)


def stack_with_lock(name: str) -> tuple[Stack, Path]:
    """Return a stack and its lock. Raises UsageError when there is no lock with its versions."""
    stack, lock = load_stack(name), lock_path(name)
    if lock is None:
        known = ", ".join(n for n in stack_names() if lock_path(n))
        raise UsageError(f"the stack {name} has no lock to install from", f"stacks with a lock: {known}")
    pins = read_lock(lock)
    for package, version in stack.packages.items():
        pin = pins.get(canonicalize_name(stack.distributions(package)[0]))
        if pin is None and package in stack.origin:
            continue  # no file for this machine is known, see ``source_builds.left_out``
        if pin is None or not matches(pin.version, version):
            has = f"{pin.name} {pin.version}" if pin else f"no {package}"
            own = Path(stack.argument).with_suffix(".txt")
            raise UsageError(
                f"{name} wants {package} {version}, but its lock {lock} has {has}",
                f"write a lock of your own: uv pip compile --generate-hashes -o {own} REQUIREMENTS",
            )
    return stack, lock


class _EnvironmentBuild:
    """One call of ``create_environment``, with the directory locked."""

    def __init__(self, directory: Path, stack: Stack, lock: Path, report: ReportPhase, lock_fd: int) -> None:
        self.directory = directory
        # The locked directory itself, also when another one is put in its place.
        self.locked = Path(f"/proc/self/fd/{lock_fd}")
        self.work = directory / WORK_DIR
        self.stack = stack
        self.pins = read_lock(lock)
        self.commits = source_builds.commit_builds(stack, Host())
        self.lock_digest = sha256_file(lock)
        self.report = report
        self.uv = UvInstaller(directory, lock_fd, self.work, report)

    def run(self) -> int:
        """Complete the environment from its current state; return the number of packages installed."""
        state = read_state(self.locked)
        if state and state.stack != self.stack.name:
            raise UsageError(
                f"{self.directory} holds the stack {state.stack}, not {self.stack.name}",
                "name another directory, or remove this one first",
            )
        versions = {pin.name: pin.version for pin in self.pins.values()}
        versions |= {build.name: build.commit for build in self.commits}
        tool = vimectl_wheel.running_vimectl()
        goal = EnvironmentState(self.stack.name, self.lock_digest, "complete", versions, tool)
        if state == goal and self._has_interpreter() and not self._absent():
            return 0
        state = self._prepare(state)
        installed = self._install_packages(state)
        self.report(PhaseProgress("installing vimectl itself"))
        self.uv.install_local(vimectl_wheel.install_arguments(self.work))
        self._compile()
        write_state(self.locked, goal)
        shutil.rmtree(self.locked / WORK_DIR)
        return installed

    def _prepare(self, state: EnvironmentState | None) -> EnvironmentState:
        """Return the state of an environment that can be updated; else begin a new one.

        A creation that was interrupted begins again: uv's cache has what it downloaded. An update that was
        interrupted continues, because the user may have installed or edited something.
        """
        if state and state.phase != "creating" and self._has_interpreter():
            return state
        interpreter = find_interpreter(self.stack.lock_pythons, Host())
        fresh = EnvironmentState(self.stack.name, self.lock_digest, "creating")
        write_state(self.locked, fresh)
        clear_directory(self.locked)
        self.uv.make_environment(interpreter)
        return fresh

    def _install_packages(self, state: EnvironmentState) -> int:
        """Install every pin of the lock and verify it; return the number of packages installed."""
        self.report(PhaseProgress("checking the installed packages"))
        site = self._site()
        missing = site_packages.incomplete(self.pins.values(), site)
        # An interrupted update may have left their RECORD and not all of their files.
        missing += [pin for pin in self.pins.values() if pin.name in state.pending and pin not in missing]
        wanted = self.pins.keys() | {build.name for build in self.commits}
        unwanted = (set(state.packages) - wanted) | set(self.stack.unwanted)
        unwanted &= set(site_packages.metadata_folders(site))
        if missing or unwanted:
            phase = state.phase if state.phase == "creating" else "updating"
            pending = sorted({pin.name for pin in missing} | set(state.pending))
            write_state(self.locked, replace(state, phase=phase, lock=self.lock_digest, pending=pending))
            self._replace(missing, unwanted)
        if altered := site_packages.incomplete(missing, site, digests=True):
            # The files in uv's cache are not those of the wheel.
            self.uv.forget([pin.name for pin in altered])
            self._replace(altered)
        if broken := site_packages.incomplete(self.pins.values(), site):
            raise CheckFailed(
                f"{', '.join(pin.name for pin in broken)}: the installed files do not match their RECORD",
                f"remove {self.directory}, then run the same command again",
            )
        for name, origin in self.stack.origin.items():
            site_packages.check_marker(name, origin, site)
        return len(missing) + self._install_commits(state)

    def _install_commits(self, state: EnvironmentState) -> int:
        """Build and install the packages that are pinned to commits; return how many were not there.

        The digest of a memory saver that was built here becomes known-good for this user.
        """
        folders = site_packages.metadata_folders(self._site())
        missing = [
            build
            for build in self.commits
            if state.packages.get(build.name) != build.commit
            or build.name not in folders
            or not site_packages.is_complete(folders[build.name])
        ]
        source_builds.install_commits(self.uv, missing)
        if any(build.name == source_builds.SAVER for build in missing):
            record_built(check_built(self._site(), self.stack, Host()), self.stack, "vimectl env create")
        return len(missing)

    def _replace(self, pins: list[Pin], unwanted: AbstractSet[str] = frozenset()) -> None:
        """Uninstall ``unwanted``, and install pins in place of what is there of them.

        Files are hard links to uv's cache. An editor may change such a file in place, and so in the cache and
        in every other environment. That is why packages with patches, which people edit, are copied.
        """
        removed = unwanted | {pin.name for pin in pins}
        if recorded := site_packages.recorded(removed, self._site()):
            self.uv.uninstall(recorded)
        site_packages.remove_metadata(removed, self._site())
        patched = {
            canonicalize_name(name)
            for package in self.stack.patches
            for name in self.stack.distributions(package)
        }
        built = [pin for pin in pins if pin.name in self.stack.sources]
        pins = [pin for pin in pins if pin not in built]
        copied = [pin for pin in pins if pin.name in patched]
        if linked := [pin for pin in pins if pin.name not in patched]:
            self.uv.install(linked, self.stack.origin)
        if copied:
            self.uv.install(copied, self.stack.origin, ["--link-mode=copy"])
        # Last: their builds use the other packages.
        source_builds.install_archives(self.uv, self.stack, built)

    def _compile(self) -> None:
        """Compile every module to byte code, or take it from the cache."""
        self.report(PhaseProgress("compiling"))
        check_in_place(self.directory, self.uv.lock_fd)
        cache = Path(platformdirs.user_cache_dir("vimectl")) / "bytecode"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:  # the home directory is read-only, or there is none
            cache = self.work / "bytecode"
        program: list[str | Path] = [
            self.uv.python,
            "-I",
            "-W",
            "ignore",
            bytecode.__file__,
            self._site(),
            cache,
        ]
        log = self.work / "compile.log"
        status, output = run_logged(program, log, lambda line: None, lock_fd=self.uv.lock_fd)
        if status:
            raise CheckFailed(
                f"compiling failed: {output.strip().splitlines()[-1] if output.strip() else status}",
                f"see {log}; the same command resumes",
            )

    def _absent(self) -> list[Pin]:
        return site_packages.to_install(self.pins.values(), self._site())

    def _site(self) -> Path:
        return site_packages.site_packages(self.directory)

    def _has_interpreter(self) -> bool:
        return self.uv.python.exists() and any((self.directory / "lib").glob("python3.*"))


def read_state(directory: Path) -> EnvironmentState | None:
    """Return the state of an environment directory, or None when it has none.

    Raises UsageError when the state file, or the folder of the downloads, is not one that vimectl made for
    this user: what else is in the directory is not ours then.
    """
    try:
        if not stat.S_ISDIR((directory / WORK_DIR).lstat().st_mode):
            raise _not_ours(WORK_DIR, "not a folder")
    except FileNotFoundError:
        pass
    try:
        with open_regular(directory / STATE_FILE, follow=False) as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                raise _not_ours(STATE_FILE, "of another user")
            return EnvironmentState(**json.loads(file.read(_MAX_STATE)))
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _not_ours(STATE_FILE, e.strerror or str(e)) from e
    except (ValueError, TypeError, RecursionError) as e:
        raise _not_ours(STATE_FILE, "not the state of an environment") from e


def _not_ours(name: str, problem: str) -> UsageError:
    return UsageError(
        f"{name} was not written by vimectl: {problem}",
        "name another directory, or remove this one first",
    )


def write_state(directory: Path, state: EnvironmentState) -> None:
    """Replace the state file atomically."""
    work = directory / WORK_DIR
    work.mkdir(exist_ok=True)
    fresh = work / "state.json"
    fresh.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    fresh.replace(directory / STATE_FILE)


def foreign_entries(names: set[str]) -> set[str]:
    """Return the entries of a directory without a state file that vimectl did not create."""
    return set() if STATE_FILE in names else names - {WORK_DIR}


def clear_directory(directory: Path) -> None:
    """Delete everything in an environment directory except the state and the downloads."""
    for entry in directory.iterdir():
        if entry.name in (STATE_FILE, WORK_DIR):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
