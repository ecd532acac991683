"""``rollouts.jsonl``: every response of every step, for people who look into what the policy says."""

from __future__ import annotations

import json
from pathlib import Path

from vime_runtime.logging.event_log import Callback
from vime_runtime.rollout.response import Response


class Rollouts(Callback):
    """Writes one JSON object a response, a step at a time.

    Keys: ``step``, ``group`` (the prompt's index in the step), ``prompt``, ``response``, ``label``,
    ``reward``, ``finish_reason``, ``response_tokens`` and ``logprob``, the log-probability of the whole
    response in nats. That of every token would make the file ten times as large.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self._began = False

    def rollout(
        self, step: int, group: int, prompt: str, label: str, response: Response, text: str, reward: float
    ) -> None:
        """Take in one response."""
        if not self._began:
            self._began = True
            _forget_from(self._path, step)
        row = {
            "step": step,
            "group": group,
            "prompt": prompt,
            "response": text,
            "label": label,
            "reward": reward,
            "finish_reason": response.finish_reason,
            "response_tokens": len(response.token_ids),
            "logprob": sum(response.logprobs),
        }
        self._lines.append(json.dumps(row) + "\n")

    def enter(self, phase: str, step: int, detail: str) -> None:
        """Write what the rollout that has just ended brought."""
        self._write()

    def close(self) -> None:
        """Write the rest."""
        self._write()

    def _write(self) -> None:
        if self._lines:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
            self._lines = []


def _forget_from(path: Path, step: int) -> None:
    """Cut off what an earlier attempt wrote of this step and later ones: they are done again."""
    if not path.exists():
        return
    kept = 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
                break
            kept += len(line)
        file.truncate(kept)
