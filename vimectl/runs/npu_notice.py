"""Tell the user before a first run on NPUs which of its steps have not been tested on an NPU yet.

``tests/npu/proof`` has the tests of every step; ``docs/npu-path.md`` lists steps and tests.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs
from vime_runtime.spec.recipe import Recipe

from vimectl import __version__

REPORT_REQUEST = (
    "Please report whether it works or not: `vimectl doctor --bundle report.zip` collects what a report "
    "needs, without secrets and names of people; attach it together with summary.json of the run."
)


class UntestedStep(NamedTuple):
    """A step of a run, and the part of it that can only be tested on an NPU."""

    description: str
    untested: str


UNTESTED_STEPS = {
    "ray": UntestedStep(
        "start Ray with the NPUs as a resource, and the actors on them",
        "Ray's NPU resource, with the visible devices set by the run",
    ),
    "trainer": UntestedStep(
        "build the trainer: MindSpeed's adaptor, Megatron-core, HCCL groups, the model in its memory region",
        "MindSpeed's own code (it has no release on the package index); HCCL itself",
    ),
    "offload": UntestedStep(
        "offload and restore the trainer's memory region", "the Ascend build of torch_memory_saver"
    ),
    "engine": UntestedStep(
        "start the engine while the trainer is offloaded", "vllm-ascend's kernels and graph capture"
    ),
    "share": UntestedStep(
        "share each bucket with the engine on the same chip by IPC handle",
        "CANN's IPC handles between two processes of one chip",
    ),
    "experts": UntestedStep(
        "train a model with experts that are distributed over replicas of several ranks",
        "Qwen3-30B-A3B's size on sixteen NPUs; vllm-ascend's kernels for experts",
    ),
    "steps": UntestedStep(
        "let trainer and engine take turns on a chip, step after step, and shut them down",
        "memory, speed and stability at the recipe's own size",
    ),
}


def text(recipe: Recipe) -> str:
    """Return the notice for a run on NPUs; empty for other devices."""
    if recipe.cluster.device != "npu":
        return ""
    steps = [f"  {step.description}: {step.untested}" for step in UNTESTED_STEPS.values()]
    return "\n".join(["Not tested on an NPU yet:", *steps, REPORT_REQUEST])


def has_completed(recipe: Recipe) -> bool:
    """Return True if this user has completed a run on NPUs with the recipe's stack."""
    return _marker(recipe).exists()


def note_completed(recipe: Recipe, summary: dict[str, Any]) -> None:
    """Record that a run on NPUs has completed."""
    if recipe.cluster.device != "npu":
        return
    _marker(recipe).parent.mkdir(parents=True, exist_ok=True)
    document = {"time": time.time(), "version": __version__, "summary": summary}
    _marker(recipe).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _marker(recipe: Recipe) -> Path:
    return Path(platformdirs.user_state_dir("vimectl")) / "npu-path" / f"{recipe.recipe.stack}.json"
