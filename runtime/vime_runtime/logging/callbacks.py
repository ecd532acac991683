"""The callbacks of a run: phases in the driver's log, ``rollouts.jsonl``, TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

from vime_runtime.logging.event_log import Callback, ScoredResponse, rewind
from vime_runtime.logging.process_log import PhaseMarker
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.run_config import RunConfig


def configured_callbacks(config: RunConfig) -> list[Callback]:
    """Return the callback that marks phases in the driver's log, and those that ``[watch]`` turns on.

    Raises:
        UsageError: ``watch.tensorboard`` is on and TensorBoard is not installed.
    """
    callbacks: list[Callback] = [PhaseMarker()]
    if config.recipe.watch.rollouts:
        callbacks.append(RolloutWriter(config.paths.rollouts))
    if config.recipe.watch.tensorboard:
        try:
            from vime_runtime.logging.tensorboard import TensorBoardWriter
        except ImportError as e:
            message = f"watch.tensorboard is true, but TensorBoard cannot be imported: {e}"
            raise UsageError(message, "pip install tensorboard, or --set watch.tensorboard=false") from e
        callbacks.append(TensorBoardWriter(config.paths.tensorboard))
    return callbacks


class RolloutWriter(Callback):
    """Write every response of every step to a file, one JSON object per line.

    Keys: ``step``, ``group`` (the prompt's index in the step), ``prompt``, ``response``, ``label``,
    ``reward``, ``finish_reason``, ``response_tokens`` and ``logprob``, the log-probability of the whole
    response in nats. Per-token log-probabilities would make the file ten times as large.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self._started = False

    def on_response(self, scored: ScoredResponse) -> None:
        """Add a response. The first one removes the lines of an earlier attempt from its step on."""
        if not self._started:
            self._started = True
            self._path.touch()
            rewind(self._path, scored.step - 1)
        row = {
            "step": scored.step,
            "group": scored.group,
            "prompt": scored.prompt,
            "response": scored.text,
            "label": scored.label,
            "reward": scored.reward,
            "finish_reason": scored.response.finish_reason,
            "response_tokens": len(scored.response.token_ids),
            "logprob": sum(scored.response.logprobs),
        }
        self._lines.append(json.dumps(row) + "\n")

    def on_phase(self, phase: str, step: int, detail: str) -> None:
        """Write the responses of the rollout that has just ended."""
        self.close()

    def close(self) -> None:
        """Write the rest."""
        if self._lines:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
            self._lines = []
