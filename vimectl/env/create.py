"""Create, resume or update the virtual environment of a stack."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.env import site_packages, vimectl_wheel
from vimectl.env.download_wheels import download_wheels
from vimectl.env.installer import EXACT, Pip
from vimectl.env.interpreter import find_interpreter, make_venv
from vimectl.stacks.catalog import load_stack, lock_path, stack_names
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches
from vimectl.util.directory_lock import lock_directory
from vimectl.util.host import Host
from vimectl.util.phase_progress import PhaseProgress, ReportPhase
from vimectl.util.subprocess import run_logged

# Marks a directory as created by vimectl.
STATE_FILE = ".vimectl-env.json"
# The folder of the downloads, until the environment is complete.
WORK_DIR = ".vimectl-env"
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class EnvironmentState:
    """The contents of the state file.

    ``packages`` (name to version) and ``tool`` (which vimectl) describe the last complete state.
    """

    stack: str
    lock: str
    phase: Literal["interpreter", "packages", "complete"]
    packages: dict[str, str] = field(default_factory=dict)
    tool: str = ""


@dataclass(frozen=True)
class CreatedEnvironment:
    """The result of ``create_environment``. ``installed`` counts the packages that this call installed."""

    directory: Path
    stack: str
    python: Path
    packages: int
    installed: int
    seconds: float


def create_environment(directory: Path, stack: Stack, lock: Path, report: ReportPhase) -> CreatedEnvironment:
    """Make ``directory`` a virtual environment that holds exactly the lock of a stack, and this vimectl.

    An interrupted call is resumed; for a complete environment the call returns at once.

    Raises:
        UsageError: vimectl did not create the directory, or it holds another stack.
        MissingRequirement: there is no matching interpreter, or no source has a package.
        CheckFailed: pip failed, a file has another digest than the lock's, or the result does not verify.
    """
    began = time.monotonic()
    directory = directory.absolute()
    existed = directory.exists()
    waiting = PhaseProgress(f"waiting for another `vimectl env create` in {directory}")
    try:
        with lock_directory(directory, lambda: report(waiting), foreign_entries) as lock_fd:
            build = _EnvironmentBuild(directory, stack, lock, report, lock_fd)
            installed = build.run()
    finally:
        if not existed:
            with suppress(OSError):  # not empty: an environment was created
                directory.rmdir()
    seconds = time.monotonic() - began
    return CreatedEnvironment(directory, stack.name, build.pip.python, len(build.pins), installed, seconds)


def stack_with_lock(name: str) -> tuple[Stack, Path]:
    """Return a stack and its lock. Raises UsageError when there is no lock with its versions."""
    stack, lock = load_stack(name), lock_path(name)
    if lock is None:
        known = ", ".join(n for n in stack_names() if lock_path(n))
        raise UsageError(f"the stack {name} has no lock to install from", f"stacks with a lock: {known}")
    pins = read_lock(lock)
    for package, version in stack.packages.items():
        pin = pins.get(canonicalize_name(stack.distributions(package)[0]))
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
        self.work = directory / WORK_DIR
        self.stack = stack
        self.pins = read_lock(lock)
        self.lock_digest = sha256_file(lock)
        self.report = report
        self.pip = Pip(directory / "bin" / "python", lock_fd, self.work)

    def run(self) -> int:
        """Complete the environment from its current state; return the number of packages installed."""
        state = read_state(self.directory)
        if state and state.stack != self.stack.name:
            raise UsageError(
                f"{self.directory} holds the stack {state.stack}, not {self.stack.name}",
                "name another directory, or remove this one first",
            )
        versions = {pin.name: pin.version for pin in self.pins.values()}
        tool = vimectl_wheel.running_vimectl()
        goal = EnvironmentState(self.stack.name, self.lock_digest, "complete", versions, tool)
        if state == goal and self.pip.python.exists() and not self._to_install(thorough=False):
            return 0
        state = self._prepare_interpreter(state)
        installed = self._install_packages(previous=state.packages)
        self.report(PhaseProgress("installing vimectl itself"))
        arguments = vimectl_wheel.pip_arguments(self.work)
        self._run_pip(["install", "--no-deps", "--no-index", "--force-reinstall", *arguments])
        self._compile()
        write_state(self.directory, goal)
        shutil.rmtree(self.work)
        return installed

    def _prepare_interpreter(self, state: EnvironmentState | None) -> EnvironmentState:
        """Create the virtual environment with the pinned pip unless it exists; return the state reached."""
        # An interrupted update that is resumed with yet another lock starts from scratch: files of a
        # half-installed package belong to no distribution, so they could not be uninstalled.
        usable = (
            state
            and self.pip.python.exists()
            and (state.phase == "complete" or (state.phase == "packages" and state.lock == self.lock_digest))
        )
        if state and usable:
            write_state(self.directory, replace(state, phase="packages", lock=self.lock_digest))
            return state
        interpreter = find_interpreter(self.stack.stack.python, Host())
        fresh = EnvironmentState(self.stack.name, self.lock_digest, "interpreter")
        write_state(self.directory, fresh)
        clear_directory(self.directory)
        self.report(PhaseProgress(f"creating a virtual environment with {interpreter}"))
        make_venv(interpreter, self.directory)
        pinned_pip = self.pip.requirements([self.pins["pip"]])
        self._run_pip(["install", *EXACT, "--no-compile", "-r", pinned_pip])
        fresh = replace(fresh, phase="packages")
        write_state(self.directory, fresh)
        return fresh

    def _install_packages(self, previous: dict[str, str]) -> int:
        """Install every pin of the lock and verify it; return the number of packages installed."""
        self.report(PhaseProgress("checking the installed packages"))
        missing = self._to_install(thorough=True)
        wheels = self.work / "wheels"
        download_wheels(self.pip, missing, wheels, self.stack.origin, self.report)
        site = self._site()
        if missing:
            site_packages.remove_partial_installs(missing, site)
            arguments = ["install", *EXACT, "--no-index", "--find-links", str(wheels)]
            arguments += ["--no-compile", "--force-reinstall", "-r", self.pip.requirements(missing)]
            with self._count_installed(missing):
                self._run_pip(arguments)
        stale = (set(previous) - set(self.pins)) | set(self.stack.unwanted)
        stale &= set(site_packages.metadata_folders(site))
        if stale:
            self._run_pip(["uninstall", "--yes", *sorted(stale)])
        if broken := self._to_install(thorough=True):
            raise CheckFailed(
                f"{', '.join(pin.name for pin in broken)}: the installed files do not match their RECORD",
                "run the same command again",
            )
        for name, origin in self.stack.origin.items():
            site_packages.check_marker(name, origin, site)
        return len(missing)

    def _compile(self) -> None:
        """Compile every module to byte code, on all cores.

        pip would use one core. Otherwise each process of the first run would compile them, and of every run
        where PYTHONDONTWRITEBYTECODE is set.
        """
        self.report(PhaseProgress("compiling"))
        # The exit status is ignored: some packages contain templates that are not valid Python.
        argv: list[str | Path] = [self.pip.python, "-m", "compileall", "-q", "-j", "0", self._site()]
        run_logged(argv, self.work / "compile.log", lambda line: None, lock_fd=self.pip.lock_fd)

    @contextmanager
    def _count_installed(self, pins: list[Pin]) -> Iterator[None]:
        """Report how many of ``pins`` are installed while the body runs; pip prints no progress for that."""
        finished = threading.Event()

        def watch() -> None:
            while not finished.wait(_POLL_SECONDS):
                done = len(pins) - len(site_packages.to_install(pins, self._site(), thorough=False))
                self.report(PhaseProgress("installing", done, len(pins)))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()

    def _to_install(self, thorough: bool) -> list[Pin]:
        return site_packages.to_install(self.pins.values(), self._site(), thorough)

    def _site(self) -> Path:
        return site_packages.site_packages(self.directory)

    def _run_pip(self, arguments: list[str]) -> None:
        status, output = self.pip.run(arguments, lambda line: None)
        if status != 0:
            errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if "ERROR: " in line]
            raise CheckFailed(
                f"pip {arguments[0]} failed: {errors[-1] if errors else f'exit status {status}'}",
                f"see {self.pip.log}; run the same command again to resume",
            )


def read_state(directory: Path) -> EnvironmentState | None:
    """Return the state of an environment directory, or None when it has none that can be read."""
    try:
        return EnvironmentState(**json.loads((directory / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


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
