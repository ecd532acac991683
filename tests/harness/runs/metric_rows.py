"""Lines of a run's files as the runtime writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def metrics(step: int) -> dict[str, Any]:
    """One row as the runtime writes it."""
    gain = 1 - math.exp(-step / 10)
    return {
        "step": step,
        "reward/mean": 0.3 + 0.6 * gain,
        "reward/std": 0.4,
        "response/length": 4.0,
        "rollout/tokens": 512,
        "train/loss": math.sin(step) / 100,
        "train/grad_norm": 1.5 - gain,
        "train/entropy": 0.7 - gain / 2,
        "logprob/abs_diff_mean": 2e-3,
        "logprob/abs_diff_max": 7e-2,
        "memory/train_active_bytes": 54 * 2**20,
        "memory/train_paused_bytes": 0,
        "memory/rollout_active_bytes": 134 * 2**20,
        "memory/rollout_paused_bytes": 0,
        "memory/peak_bytes": 3 * 2**30,
        "step/seconds": 1.2,
        **{f"{name}/seconds": 0.2 for name in ("rollout", "train", "sync", "sleep", "wake")},
    }


def sample(step: int, group: int = 0, **change: Any) -> dict[str, Any]:
    """One ``sample`` event."""
    asked = {"prompt": f"reverse 12{group} =", "response": f"{group}21", "label": f"{group}21", "reward": 1.0}
    return {"time": 1.8e9, "kind": "sample", "step": step, **asked, **change}


def answer(step: int, problem: int = 0, name: str = "held-out", **change: Any) -> dict[str, Any]:
    """One line of ``evaluations.jsonl``."""
    asked = {"prompt": f"reverse 12{problem} =", "response": f"{problem}21", "label": f"{problem}21"}
    end = {"reward": 1.0, "finish_reason": "stop", "response_tokens": 4}
    return {"step": step, "set": name, "problem": problem, **asked, **end, **change}


def add_lines(path: Path, *lines: dict[str, Any]) -> None:
    """Append objects to a file of JSON lines."""
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
