"""Create, resume or update the environment of a stack."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.env import origin, records, several, tool
from vimectl.env.interpreter import find_interpreter, make_venv
from vimectl.env.pip import Pip
from vimectl.env.several import EXACT, Progress, Report
from vimectl.env.state import WORK_DIR, State, owned, read_state, wipe, write_state
from vimectl.stacks.catalog import load_stack, lock_path, stack_names
from vimectl.stacks.lock import Pin, lock_digest, read_lock
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host
from vimectl.util.subprocess import follow

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Created:
    """What ``create`` found and did. ``installed`` counts the packages that this call installed."""

    directory: Path
    stack: str
    python: Path
    packages: int
    installed: int
    seconds: float


def create(directory: Path, stack: Stack, lock: Path, report: Report) -> Created:
    """Make ``directory`` a virtual environment that holds exactly the lock of a stack, and this vimectl.

    A call that was interrupted is taken up where it was; a complete environment returns at once.

    Raises:
        UsageError: the directory is not ours, or holds another stack.
        MissingRequirement: no fitting interpreter, or a package that no source has.
        CheckFailed: pip failed, a file has another digest than the lock's, or the result does not verify.
    """
    began = time.monotonic()
    directory = directory.absolute()
    waiting = Progress(f"waiting for another `vimectl env create` in {directory}")
    with owned(directory, lambda: report(waiting)) as held:
        build = _Build(directory, stack, lock, report, held)
        installed = build.bring_up()
    seconds = time.monotonic() - began
    return Created(directory, stack.name, build.pip.python, len(build.pins), installed, seconds)


def installable(name: str) -> tuple[Stack, Path]:
    """Return a stack and its lock. Raises UsageError when the stack is unknown or has no lock."""
    stack, lock = load_stack(name), lock_path(name)
    if lock is None:
        known = ", ".join(n for n in stack_names() if lock_path(n))
        raise UsageError(f"the stack {name} has no lock to install from", f"stacks with a lock: {known}")
    return stack, lock


class _Build:
    """One call of ``create``, the directory held."""

    def __init__(self, directory: Path, stack: Stack, lock: Path, report: Report, held: int) -> None:
        self.directory = directory
        self.work = directory / WORK_DIR
        self.stack = stack
        self.pins = read_lock(lock)
        self.digest = lock_digest(lock)
        self.report = report
        self.pip = Pip(directory / "bin" / "python", held, self.work)

    def bring_up(self) -> int:
        """Take the directory from the state it is in to complete; return how many packages that installed."""
        state = read_state(self.directory)
        if state and state.stack != self.stack.name:
            raise UsageError(
                f"{self.directory} holds the stack {state.stack}, not {self.stack.name}",
                "name another directory, or remove this one first",
            )
        goal = State(self.stack.name, self.digest, "complete", self._versions(), tool.identity())
        if state == goal and self.pip.python.exists() and not self._lacking(thorough=False):
            return 0
        state = self._interpreter(state)
        installed = self._packages(previous=state.packages)
        self._tool()
        self._compile()
        write_state(self.directory, goal)
        shutil.rmtree(self.work)
        return installed

    def _interpreter(self, state: State | None) -> State:
        """Have an interpreter with the pinned pip; return the state to go on from."""
        # An update that was cut off and is now asked for yet another lock starts over: files of a
        # package that was half installed belong to nobody, so nothing could remove them.
        usable = (
            state
            and self.pip.python.exists()
            and (state.phase == "complete" or (state.phase == "packages" and state.lock == self.digest))
        )
        if state and usable:
            write_state(self.directory, replace(state, phase="packages", lock=self.digest))
            return state
        interpreter = find_interpreter(self.stack.stack.python, Host())
        fresh = State(self.stack.name, self.digest, "interpreter")
        write_state(self.directory, fresh)
        wipe(self.directory)
        self.report(Progress(f"making a virtual environment with {interpreter}"))
        make_venv(interpreter, self.directory)
        self._pip(["install", *EXACT, "--no-compile", "-r", self._requirements([self.pins["pip"]])])
        fresh = replace(fresh, phase="packages")
        write_state(self.directory, fresh)
        return fresh

    def _packages(self, previous: dict[str, str]) -> int:
        """Have every pin of the lock installed and verified; return how many had to be."""
        self.report(Progress("reading what is installed"))
        lacking = self._lacking(thorough=True)
        several.fetch(self.pip, lacking, self.work / "wheels", self.stack.origin, self.report)
        self._install(lacking)
        site = self._site()
        stale = (set(previous) - set(self.pins)) | set(self.stack.unwanted)
        stale &= set(records.metadata_folders(site))
        if stale:
            self._pip(["uninstall", "--yes", *sorted(stale)])
        broken = self._lacking(thorough=True)
        if broken:
            raise CheckFailed(
                f"{', '.join(pin.name for pin in broken)}: what is installed does not agree with its RECORD",
                "run the same command again",
            )
        for name, source in self.stack.origin.items():
            origin.verify(name, source, site)
        return len(lacking)

    def _install(self, lacking: list[Pin]) -> None:
        if not lacking:
            return
        records.clear_debris(lacking, self._site())
        arguments = ["install", *EXACT, "--no-index", "--find-links", str(self.work / "wheels")]
        arguments += ["--no-compile", "--force-reinstall", "-r", self._requirements(lacking)]
        with self._watching(lacking):
            self._pip(arguments)

    def _tool(self) -> None:
        self.report(Progress("installing vimectl itself"))
        self._pip(["install", "--no-deps", "--no-index", "--force-reinstall", *tool.arguments(self.work)])

    def _compile(self) -> None:
        """Compile every module to byte code, on all cores.

        pip would do it on one; left to the first run, its processes would each do it at once, every time
        where PYTHONDONTWRITEBYTECODE is set.
        """
        site = self._site()
        total = sum(1 for _ in site.rglob("*.py"))
        done = 0

        def on_line(line: str) -> None:
            nonlocal done
            if line.startswith("Compiling "):
                done += 1
                self.report(Progress("compiling", done, total, unit="modules"))

        # The exit status says nothing of use: some packages ship templates that are not Python.
        argv = [str(self.pip.python), "-m", "compileall", "-j", "0", str(site)]
        follow(argv, {}, self.pip.lock, self.work / "compile.log", on_line)

    @contextmanager
    def _watching(self, pins: list[Pin]) -> Iterator[None]:
        """Report how many of ``pins`` are installed while the body runs; pip itself is silent about it."""
        finished = threading.Event()

        def watch() -> None:
            while not finished.wait(_POLL_SECONDS):
                done = len(pins) - len(records.to_install(pins, self._site(), thorough=False))
                self.report(Progress("installing", done, len(pins)))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()

    def _lacking(self, thorough: bool) -> list[Pin]:
        return records.to_install(self.pins.values(), self._site(), thorough)

    def _site(self) -> Path:
        return records.site_packages(self.directory)

    def _versions(self) -> dict[str, str]:
        return {pin.name: pin.version for pin in self.pins.values()}

    def _requirements(self, pins: Iterable[Pin]) -> str:
        return self.pip.requirements(pins)

    def _pip(self, arguments: list[str], on_line: Callable[[str], None] = lambda line: None) -> None:
        status, output = self.pip.run(arguments, on_line)
        if status != 0:
            errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if "ERROR: " in line]
            raise CheckFailed(
                f"pip {arguments[0]} failed: {errors[-1] if errors else f'exit status {status}'}",
                f"see {self.pip.log}; the same command goes on where this one stopped",
            )
