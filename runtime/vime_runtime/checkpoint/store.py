"""The training states of a run on disk: written under a partial name, renamed when complete, then verified.

``checkpoints/step-000010`` has a file for each rank whose state no other rank has, the random generators of
all processes, and a manifest. The engine and the data need no state: the seeds of requests and the problems
of a step depend only on ``algorithm.seed`` and the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vime_runtime.spec import atomic_io, fsync
from vime_runtime.spec.atomic_io import FileRecord
from vime_runtime.spec.checkpoint_manifest import (
    MANIFEST_FILE,
    PARTIAL_SUFFIX,
    CheckpointManifest,
    state_directory,
    state_steps,
)
from vime_runtime.spec.errors import UsageError

RANDOM_FILE = "random.json"


@dataclass(frozen=True)
class StatePart:
    """The part of a state that one trainer rank wrote, and the state of its random generators."""

    files: dict[str, FileRecord]
    random: dict[str, Any]


@dataclass(frozen=True)
class TrainingState:
    """A complete training state, as it was after ``step``."""

    step: int
    folder: Path

    @cached_property
    def random(self) -> dict[str, Any]:
        """The random generators: ``driver``, and ``ranks`` in rank order."""
        random: dict[str, Any] = json.loads((self.folder / RANDOM_FILE).read_text(encoding="utf-8"))
        return random


class CheckpointStore:
    """The states in one folder; ``settings`` identifies the settings that they were trained with."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self._settings = settings

    def newest(self, warn: Callable[[str], object]) -> TrainingState | None:
        """Return the newest undamaged state, or None; every file is compared with its digest.

        Partial states of a killed run are removed.

        Args:
            warn: called with a message for every newer state that is damaged.

        Raises:
            UsageError: the state was trained with other settings.
        """
        for path in self.folder.glob(f"*{PARTIAL_SUFFIX}"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for step in reversed(state_steps(self.folder)):
            state = TrainingState(step, self.path(step))
            damage = self._damage(state)
            if not damage:
                return state
            warn(f"{state.folder} is damaged and skipped: {damage}")
        return None

    def path(self, step: int) -> Path:
        """Return where the state of a step is, or would be."""
        return state_directory(self.folder, step)

    def write(self, step: int, parts: Callable[[Path], list[StatePart]], driver: dict[str, Any]) -> int:
        """Write a partial state; ``publish`` completes it.

        Args:
            parts: makes every trainer rank write its part into a folder.
            driver: the random generators of this process.

        Returns:
            its size in bytes.

        Raises:
            OSError: the state could not be written; ``drop`` removes what was.
        """
        self.drop(step)
        partial = self._partial(step)
        partial.mkdir(parents=True)
        written = parts(partial)
        files = {name: record for part in written for name, record in part.files.items()}
        random = {"driver": driver, "ranks": [part.random for part in written]}
        files[RANDOM_FILE] = atomic_io.write_text(partial / RANDOM_FILE, json.dumps(random))
        manifest = CheckpointManifest(step=step, settings=self._settings, files=files)
        atomic_io.write_text(partial / MANIFEST_FILE, manifest.dump())
        fsync.sync(partial)
        return sum(record.bytes for record in files.values())

    def publish(self, step: int) -> None:
        """Give a partial state its final name; it replaces a damaged state of that step."""
        shutil.rmtree(self.path(step), ignore_errors=True)
        self._partial(step).rename(self.path(step))
        fsync.sync(self.folder)

    def drop(self, step: int) -> None:
        """Remove the partial state of a step."""
        shutil.rmtree(self._partial(step), ignore_errors=True)

    def prune(self, step: int, keep: int, best: int | None) -> None:
        """Keep the last ``keep`` states up to ``step`` and that of the ``best`` step.

        States after ``step`` belong to an attempt that the run did not resume from.
        """
        steps = state_steps(self.folder)
        kept = {*[s for s in steps if s <= step][-keep:], best}
        for old in steps:
            if old not in kept:
                shutil.rmtree(self.path(old), ignore_errors=True)

    def _partial(self, step: int) -> Path:
        return self.path(step).with_name(self.path(step).name + PARTIAL_SUFFIX)

    def _damage(self, state: TrainingState) -> str:
        """Return what is wrong with a state, or ""."""
        try:
            manifest = CheckpointManifest.load(state.folder)
        except OSError as e:
            return f"{MANIFEST_FILE} cannot be read: {e}"
        except ValidationError as e:
            return f"{MANIFEST_FILE} cannot be read: {e.errors()[0]['msg']}"
        if manifest.step != state.step or RANDOM_FILE not in manifest.files:
            return f"{MANIFEST_FILE} is not of this state"
        with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
            damages = pool.map(
                lambda name: _file_damage(state.folder / name, manifest.files[name]), manifest.files
            )
            if damage := next(filter(None, damages), ""):
                return damage
        if manifest.settings != self._settings:
            raise UsageError(
                f"{state.folder} was trained with other settings than this run",
                "use another run directory: --run-dir",
            )
        return ""


def _file_damage(path: Path, expected: FileRecord) -> str:
    try:
        found = atomic_io.file_record(path)
    except OSError as e:
        return f"{path.name}: {e.strerror}"
    if found.bytes != expected.bytes:
        return f"{path.name} has {found.bytes} bytes, expected {expected.bytes}"
    return "" if found == expected else f"{path.name} does not match its digest"
