"""The callbacks that a recipe turns on: ``rollouts.jsonl`` and TensorBoard."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.logging.event_log import Callback, ScoredResponse, rewind
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.json_files import JsonLines
from vime_runtime.spec.run_config import RunConfig


def configured_callbacks(config: RunConfig) -> list[Callback]:
    """Return the callbacks that ``[watch]`` turns on.

    Raises:
        UsageError: a tracker is not installed.
    """
    callbacks: list[Callback] = []
    if config.recipe.watch.rollouts:
        callbacks.append(RolloutWriter(config.paths.rollouts))
    if "tensorboard" in config.recipe.watch.trackers:
        try:
            from vime_runtime.logging.tensorboard import TensorBoardWriter
        except ImportError as e:
            message = f"watch.trackers has tensorboard, but TensorBoard cannot be imported: {e}"
            raise UsageError(message, "pip install tensorboard, or --set watch.trackers=[]") from e
        callbacks.append(TensorBoardWriter(config.paths.trackers / "tensorboard"))
    return callbacks


class RolloutWriter(Callback):
    """Write every response of every step to a file, one JSON object per line.

    Keys: ``step``, ``group`` (the prompt's index in the step), ``prompt``, ``response``, ``label``,
    ``reward``, ``finish_reason``, ``response_tokens`` and ``logprob``, the log-probability of the whole
    response in nats. Per-token log-probabilities would make the file ten times as large.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: JsonLines | None = None

    def on_response(self, scored: ScoredResponse) -> None:
        """Write a response. Before the first one, remove the lines of an earlier attempt from its step on."""
        if self._file is None:
            self._path.touch()
            rewind(self._path, scored.step - 1)
            self._file = JsonLines(self._path)
        self._file.append(
            {
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
        )

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
