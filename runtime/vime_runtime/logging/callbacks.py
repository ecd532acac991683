"""The callbacks of a run: files of responses and of evaluation answers, and the trackers of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vime_runtime.logging.event_log import Callback, ScoredResponse, rewind
from vime_runtime.logging.trackers.start import start_trackers
from vime_runtime.spec.json_files import JsonLines
from vime_runtime.spec.run_config import RunConfig


def configured_callbacks(config: RunConfig, warn: Callable[[str], None]) -> list[Callback]:
    """Return the callbacks that a recipe turns on. Its trackers are started.

    Args:
        warn: called when a tracker fails during the run.

    Raises:
        UsageError: a tracker is not installed or cannot start.
    """
    callbacks: list[Callback] = [EvaluationWriter(config.paths.evaluations)]
    if config.recipe.watch.rollouts:
        callbacks.append(RolloutWriter(config.paths.rollouts))
    return [*callbacks, *start_trackers(config, warn)]


class RolloutWriter(Callback):
    """Write every response of every step to a file, one JSON object per line.

    Keys: ``step``, ``group`` (the prompt's index in the step), ``prompt``, ``response``, ``label``,
    ``reward``, ``finish_reason``, ``response_tokens`` and ``logprob``, the log-probability of the whole
    response in nats. Per-token log-probabilities would make the file ten times as large.
    """

    def __init__(self, path: Path) -> None:
        self._lines = _ResponseLines(path)

    def on_response(self, scored: ScoredResponse) -> None:
        """Write a response."""
        logprob = sum(scored.response.logprobs)
        self._lines.append(scored, {"group": scored.group}, {"logprob": logprob})

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


class EvaluationWriter(Callback):
    """Write every answer of every evaluation to a file, one JSON object per line.

    Keys: ``step``, ``set``, ``problem`` (its index in the set), ``prompt``, ``response``, ``label``,
    ``reward``, ``finish_reason`` and ``response_tokens``.
    """

    def __init__(self, path: Path) -> None:
        self._lines = _ResponseLines(path)

    def on_answer(self, name: str, scored: ScoredResponse) -> None:
        """Write an answer."""
        self._lines.append(scored, {"set": name, "problem": scored.group})

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


class _ResponseLines:
    """A file with a line for each response. The first line removes those of its step and later ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: JsonLines | None = None

    def append(self, scored: ScoredResponse, *extra: dict[str, Any]) -> None:
        """Write a response with the keys of ``extra``; the first of them follow the step."""
        if self._file is None:
            self._path.touch()
            rewind(self._path, scored.step - 1)
            self._file = JsonLines(self._path)
        first, *last = extra
        line = {
            "step": scored.step,
            **first,
            "prompt": scored.prompt,
            "response": scored.text,
            "label": scored.label,
            "reward": scored.reward,
            "finish_reason": scored.response.finish_reason,
            "response_tokens": len(scored.response.token_ids),
        }
        for more in last:
            line |= more
        self._file.append(line)

    def close(self) -> None:
        if self._file:
            self._file.close()
