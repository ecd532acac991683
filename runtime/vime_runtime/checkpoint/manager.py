"""Keep the training states and the best weights of a run consistent with its metrics.

State and weights are written while the trainer's memory is resident and the engine sleeps, which is before
the score of the step is known. They get their final names after the metrics of the step were logged, so a
crash cannot leave a state without metrics. The files of an evaluated step that is not kept are removed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vime_runtime.checkpoint import random_state
from vime_runtime.checkpoint.store import CheckpointStore
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec import atomic_io, events, metrics
from vime_runtime.spec.checkpoint_manifest import PARTIAL_SUFFIX
from vime_runtime.spec.errors import CheckpointFailed
from vime_runtime.spec.run_config import RunConfig

if TYPE_CHECKING:
    from vime_runtime.cluster.groups import TrainerGroup


class CheckpointManager:
    """Write, publish and remove training states, and keep the weights of the best step.

    Attributes:
        state: the state that the run resumes from; None for a new run.
        done: the step of this state; 0 for a new run.
    """

    def __init__(self, config: RunConfig, log: EventLog, stop: StopRequest) -> None:
        """Find the newest training state. Raises UsageError: it was trained with other settings."""
        self._settings = config.recipe.checkpoint
        self._steps = config.steps
        self._log = log
        self._stop = stop
        self._store = CheckpointStore(config.paths.checkpoints, config.settings_sha256)
        self.state = self._store.newest(warn=log.warn)
        self.done = self.state.step if self.state else 0
        self._finished = self._published = self.done
        self._written: tuple[int, int, float] | None = None  # step, bytes, seconds
        # The weights of a step that becomes the best if its score is high enough.
        self._candidate = config.paths.checkpoints / f"best.candidate{PARTIAL_SUFFIX}"
        self._best_file = config.paths.checkpoints / "best.json"
        self._best = self._read_best()

    def write(self, trainer: TrainerGroup, step: int, row: dict[str, float], evaluated: bool) -> None:
        """Write the state if it is due or may become the best. The trainer's memory must be resident.

        Args:
            evaluated: True if an evaluation follows this step.

        Raises:
            CheckpointFailed: it could not be written; earlier states are untouched.
        """
        if not (self._due(step) or evaluated or self._stop.requested):
            return
        with self._log.phase(metrics.CHECKPOINT, step, row), self._disk_errors(step):
            self._write(trainer, step)
            if evaluated:
                trainer.save_pretrained(self._candidate)

    def publish(self, step: int, row: dict[str, float]) -> None:
        """Mark a step with logged metrics as finished, and publish its state if it is to be kept.

        Raises:
            CheckpointFailed: the disk returned an error; earlier states are untouched.
        """
        self._finished = step
        with self._disk_errors(step):
            score = row.get(metrics.EVALUATION_SCORE)
            best = score is not None and self._record_score(step, score)
            if self._written and (best or self._due(step) or self._stop.requested):
                self._publish()
            elif self._written:
                self._store.drop(step)
                self._written = None

    def save_finished(self, get_trainer: Callable[[], TrainerGroup]) -> None:
        """Save the last finished step after a stop request, unless it is saved already.

        Args:
            get_trainer: makes the trainer's memory resident; it is only called when needed.

        Raises:
            CheckpointFailed: the state could not be written.
        """
        if self._finished == self._published:
            return
        self._log.enter(events.STOP, self._finished, detail="saving the last finished step")
        trainer = get_trainer()
        with self._disk_errors(self._finished):
            self._write(trainer, self._finished)
            self._publish()

    def _due(self, step: int) -> bool:
        every = self._settings.every
        # The last step too, so that a longer run can resume from it.
        return every > 0 and (step % every == 0 or step == self._steps)

    @contextmanager
    def _disk_errors(self, step: int) -> Iterator[None]:
        """Remove the partial checkpoint after an error; raise a disk error as CheckpointFailed."""
        try:
            yield
        except BaseException as e:
            self._store.drop(step)
            shutil.rmtree(self._candidate, ignore_errors=True)
            if not isinstance(e, OSError):
                raise
            last = self._name(self._published) if self._published else "none"
            raise CheckpointFailed(
                f"the training state of step {step} could not be written: {e.strerror}: {e.filename}; "
                f"last good checkpoint: {last}",
                "free disk space (while a state is written the disk holds one more than checkpoint.keep), "
                "then continue with --resume",
            ) from e

    def _write(self, trainer: TrainerGroup, step: int) -> None:
        started = time.perf_counter()
        size = self._store.write(step, trainer.write_state, random_state.capture())
        self._written = step, size, time.perf_counter() - started

    def _publish(self) -> None:
        assert self._written is not None
        step, size, seconds = self._written
        self._log.sync()
        self._store.publish(step)
        self._written = None
        self._published = step
        self._log.event(events.CHECKPOINT, step=step, path=self._name(step), seconds=seconds, bytes=size)
        self._store.prune(step, self._settings.keep, best=self._best["step"] if self._best else None)

    def _record_score(self, step: int, score: float) -> bool:
        """Log a score. The weights of a new best step replace those of the last best.

        Returns:
            True if it is the best.
        """
        if best := self._best is None or score > self._best["score"]:
            target = self._candidate.with_name("best")
            atomic_io.sync_directory(self._candidate)
            shutil.rmtree(target, ignore_errors=True)
            self._candidate.rename(target)
            self._best = {"step": step, "score": score, "path": self._name(step)}
            atomic_io.write_text_atomically(self._best_file, json.dumps(self._best, indent=2) + "\n")
        else:
            shutil.rmtree(self._candidate, ignore_errors=True)
        self._log.event(events.EVALUATION, step=step, score=score, best=best)
        return best

    def _name(self, step: int) -> str:
        """Return the path of a state relative to the run directory."""
        return str(self._store.path(step).relative_to(self._store.folder.parent))

    def _read_best(self) -> dict[str, Any] | None:
        """Return the best step so far; None when it is after the step that the run resumes from."""
        try:
            best: dict[str, Any] = json.loads(self._best_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return best if best["step"] <= self._finished else None
