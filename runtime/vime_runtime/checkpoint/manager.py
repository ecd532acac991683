"""What lasts of a run: the training state and the best weights, kept in step with the metrics.

State and weights are written in the one window in which the trainer is awake and the engine asleep,
before the step's score is known; they get their names after the step's metrics were journaled. So no
crash can leave a state that the metrics do not reach, and an evaluated step that is neither the best nor
due costs its writing only.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from vime_runtime.checkpoint import random_state
from vime_runtime.checkpoint.store import StatePart, CheckpointStore
from vime_runtime.evaluation import SCORE
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec import atomic_io
from vime_runtime.spec.errors import CheckpointFailed
from vime_runtime.spec.run_config import RunConfig


class Trainer(Protocol):
    """What the keeper asks of the trainer ranks."""

    def write_state(self, folder: str) -> list[StatePart]: ...
    def save_pretrained(self, directory: str) -> None: ...


class CheckpointManager:
    """Writes, publishes and removes what is in ``checkpoints``."""

    def __init__(
        self,
        config: RunConfig,
        states: CheckpointStore,
        done: int,
        trainer: Trainer,
        examined: Callable[[int], bool],
        journal: EventLog,
        stop: StopRequest,
    ) -> None:
        """
        Args:
            done: the step whose state the run goes on from; 0 at its beginning.
            examined: whether a step is evaluated.
        """
        self._settings = config.recipe.checkpoint
        self._steps = config.steps
        self._states = states
        self._finished = self._published = done
        self._trainer = trainer
        self._examined = examined
        self._journal = journal
        self._stop = stop
        self._written: tuple[int, int, float] | None = None  # step, bytes, seconds
        self._best = self._read_best()

    def write(self, step: int, row: dict[str, float]) -> None:
        """Write the state if it is due or may turn out the best. Trainer awake, engine asleep.

        Raises:
            CheckpointFailed: it could not be written; the states before it are untouched.
        """
        if not (self._due(step) or self._examined(step) or self._stop.requested):
            return
        with self._journal.phase("checkpoint", step, row), self._failing(step):
            self._write(step)
            if self._examined(step):
                self._trainer.save_pretrained(str(self._candidate))

    def publish(self, step: int, row: dict[str, float]) -> None:
        """Say that a step is finished, its metrics journaled, and publish its state if it is wanted.

        Raises:
            CheckpointFailed: the disk refused; the states before it are untouched.
        """
        self._finished = step
        with self._failing(step):
            best = SCORE in row and self._note_score(step, row[SCORE])
            if self._written and (best or self._due(step) or self._stop.requested):
                self._publish()
            elif self._written:
                self._states.drop(step)
                self._written = None

    def keep_finished(self, wake_trainer: Callable[[], None]) -> None:
        """At a request to stop: make sure that the last finished step is kept. Trainer between two steps.

        Args:
            wake_trainer: called when the trainer is needed.

        Raises:
            CheckpointFailed: it could not be written.
        """
        if self._finished == self._published:
            return
        self._journal.enter("stop", self._finished, detail="keeping the last finished step")
        wake_trainer()
        with self._failing(self._finished):
            self._write(self._finished)
            self._publish()

    @property
    def _candidate(self) -> Path:
        """Where the weights of a step that may turn out the best wait for its score."""
        return self._states.folder / "best.candidate.partial"

    def _due(self, step: int) -> bool:
        every = self._settings.every
        # The last one too, so that a longer run can go on from it.
        return every > 0 and (step % every == 0 or step == self._steps)

    @contextmanager
    def _failing(self, step: int) -> Iterator[None]:
        """Make the end of the run of an error of the disk, and leave nothing half written."""
        try:
            yield
        except OSError as e:
            self._states.drop(step)
            shutil.rmtree(self._candidate, ignore_errors=True)
            last = self._name(self._published) if self._published else "none"
            raise CheckpointFailed(
                f"the training state of step {step} could not be written: {e.strerror}: {e.filename}; "
                f"last good checkpoint: {last}",
                "make room (while a state is written the disk holds one more than checkpoint.keep), "
                "then go on with --resume",
            ) from e

    def _write(self, step: int) -> None:
        began = time.perf_counter()
        size = self._states.write(
            step, lambda folder: self._trainer.write_state(str(folder)), random_state.capture()
        )
        self._written = step, size, time.perf_counter() - began

    def _publish(self) -> None:
        assert self._written is not None
        step, size, seconds = self._written
        self._journal.sync()
        self._states.publish(step)
        self._written = None
        self._published = step
        self._journal.event("checkpoint", step=step, path=self._name(step), seconds=seconds, bytes=size)
        self._states.prune(step, self._settings.keep, besides=self._best and self._best["step"])

    def _note_score(self, step: int, score: float) -> bool:
        """Report a score, and let the weights of the best step so far take the place of those before.

        Returns:
            whether it is the best.
        """
        if best := self._best is None or score > self._best["score"]:
            target = self._states.folder / "best"
            atomic_io.sync_directory(self._candidate)
            shutil.rmtree(target, ignore_errors=True)
            self._candidate.rename(target)
            self._best = {"step": step, "score": score, "path": self._name(step)}
            atomic_io.write_text_atomically(self._best_file, json.dumps(self._best, indent=2) + "\n")
        else:
            shutil.rmtree(self._candidate, ignore_errors=True)
        self._journal.event("evaluation", step=step, score=score, best=best)
        return best

    def _name(self, step: int) -> str:
        """A state's place in the run directory."""
        return str(self._states.path(step).relative_to(self._states.folder.parent))

    @property
    def _best_file(self) -> Path:
        return self._states.folder / "best.json"

    def _read_best(self) -> dict[str, Any] | None:
        """The best step so far, unless it lies after the step that the run goes on from."""
        try:
            best = json.loads(self._best_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return best if best["step"] <= self._finished else None
