"""The training states of a run on the disk: written beside, renamed when whole, the newest whole one found.

``checkpoints/step-000010`` holds one file for each tensor-parallel rank, the random generators of every
side, and ``manifest.json`` with size and digest of each file. The engine has no generator of its own to
keep, since every request brings a seed made of ``algorithm.seed`` and the step; nor have the data, since
the problems of a step depend on those two alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vime_runtime.spec import atomic_io
from vime_runtime.spec.atomic_io import FileRecord
from vime_runtime.spec.errors import UsageError

SCHEMA = "vime.state/1"
MANIFEST = "manifest.json"
RANDOM = "random.json"
PARTIAL = ".partial"


@dataclass(frozen=True)
class StatePart:
    """What one trainer rank wrote of a state, and where its random generators stand."""

    files: dict[str, FileRecord]
    random: dict[str, Any]


@dataclass(frozen=True)
class State:
    """A whole training state, as it was after ``step``."""

    step: int
    folder: Path

    @cached_property
    def random(self) -> dict[str, Any]:
        """The generators: ``driver``, and ``ranks`` in order of the trainer ranks."""
        return json.loads((self.folder / RANDOM).read_text(encoding="utf-8"))


class CheckpointStore:
    """The states in one folder; ``settings`` identifies what they were trained with."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self._settings = settings

    def newest(self, passed_over: Callable[[str], object]) -> State | None:
        """The newest whole state, every file read and compared with its digest; None when there is none.

        What a killed run had begun to write is removed.

        Args:
            passed_over: told of every newer one that is damaged, with its name and its fault.

        Raises:
            UsageError: it was trained with other settings.
        """
        self._remove_partial()
        for step in reversed(self.steps()):
            state = State(step, self.path(step))
            if fault := self._fault(state):
                passed_over(f"{state.folder} is damaged and passed over: {fault}")
            else:
                return state
        return None

    def steps(self) -> list[int]:
        """The steps of which there is a folder, whole or not, in order."""
        names = [path.name.removeprefix("step-") for path in self.folder.glob("step-*")]
        return sorted(int(name) for name in names if name.isdigit())

    def path(self, step: int) -> Path:
        """Where the state of a step is, or would be."""
        return self.folder / f"step-{step:06}"

    def write(self, step: int, parts: Callable[[Path], list[StatePart]], driver: dict[str, Any]) -> int:
        """Write a state beside its place; it counts once it is published.

        Args:
            parts: has every trainer rank write into a folder.
            driver: where the generators of this process stand.

        Returns:
            its size in bytes.

        Raises:
            OSError: it could not be written; nothing of it is left.
        """
        partial = self._partial(step)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            written = parts(partial)
            files = {name: record for part in written for name, record in part.files.items()}
            random = {"driver": driver, "ranks": [part.random for part in written]}
            files[RANDOM] = atomic_io.write_text(partial / RANDOM, json.dumps(random))
            manifest = {
                "schema": SCHEMA,
                "step": step,
                "settings": self._settings,
                "files": {name: asdict(record) for name, record in files.items()},
            }
            atomic_io.write_text(partial / MANIFEST, json.dumps(manifest, indent=2) + "\n")
            atomic_io.sync(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return sum(record.bytes for record in files.values())

    def publish(self, step: int) -> None:
        """Give a state that was written its name; a damaged one that has it makes room."""
        shutil.rmtree(self.path(step), ignore_errors=True)
        self._partial(step).rename(self.path(step))
        atomic_io.sync(self.folder)

    def drop(self, step: int) -> None:
        """Forget a state that was written and is not to be published."""
        shutil.rmtree(self._partial(step), ignore_errors=True)

    def prune(self, step: int, keep: int, besides: int | None) -> None:
        """Keep the last ``keep`` states up to ``step``, and that of ``besides``.

        Those after ``step`` are of a history that the run did not go on from.
        """
        kept = {*[s for s in self.steps() if s <= step][-keep:], besides}
        for old in self.steps():
            if old not in kept:
                shutil.rmtree(self.path(old), ignore_errors=True)

    def _partial(self, step: int) -> Path:
        return self.path(step).with_name(self.path(step).name + PARTIAL)

    def _remove_partial(self) -> None:
        for path in self.folder.glob(f"*{PARTIAL}"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _fault(self, state: State) -> str:
        """What is wrong with a state; "" when it is whole."""
        try:
            manifest = json.loads((state.folder / MANIFEST).read_text(encoding="utf-8"))
            step, settings, files = manifest["step"], manifest["settings"], manifest["files"]
            expected = {name: FileRecord(**record) for name, record in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            return f"{MANIFEST} cannot be read: {e}"
        if step != state.step or RANDOM not in expected:
            return f"{MANIFEST} is not of this state"
        with ThreadPoolExecutor() as pool:  # hashing lets other threads go on
            faults = pool.map(lambda name: _file_fault(state.folder / name, expected[name]), expected)
            if fault := next(filter(None, faults), ""):
                return fault
        if settings != self._settings:
            raise UsageError(
                f"{state.folder} was trained with other settings than this run",
                "give the run a directory of its own with --run-dir",
            )
        return ""


def _file_fault(path: Path, expected: FileRecord) -> str:
    try:
        found = atomic_io.file_record(path)
    except OSError as e:
        return f"{path.name}: {e.strerror}"
    if found.bytes != expected.bytes:
        return f"{path.name} has {found.bytes} bytes, expected {expected.bytes}"
    return "" if found == expected else f"{path.name} does not match its digest"
