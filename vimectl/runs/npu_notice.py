"""Tell the user before a first run on NPUs which of its steps are untested there, and what to watch for.

``tests/npu/proof`` has the tests of every step; ``docs/explanation/npu-path.md`` lists steps and tests.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs
from vime_runtime.spec import metrics
from vime_runtime.spec.device_memory import always_held
from vime_runtime.spec.recipe import Recipe

from vimectl import __version__
from vimectl.util.units import size

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
        "HCCL itself and the kernels of torch_npu and MindSpeed",
    ),
    "offload": UntestedStep(
        "offload and restore the trainer's memory region", "mapping and unmapping of a chip's memory by CANN"
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


# What the first run on NPUs may show, and what to do then.
SIGNS = (
    "The engine does not start, or hangs while it captures graphs: --set rollout.eager=true.",
    "npu-smi info in the first rollout: in addition to what an idle chip uses, gpu_memory_utilization of "
    "its memory and {kept} of buckets and communicators. More: the trainer's memory was not returned.",
    '"[torch_memory_saver.cpp]" in the log of a trainer rank: the library has ended the process, usually '
    "because the chip had too little free memory. Lower rollout.gpu_memory_utilization.",
    "{difference} in metrics.jsonl above 0.1: the engine does not have the trainer's weights. On CPUs "
    "it is below 0.05 in bf16.",
    "HCCL time-outs (EI0006 while connecting, EI0002 in a collective): another rank failed or waits. The log "
    "of the rank that stopped first has the reason.",
    "An error of IPC handles (aclrtIpc) in the first weight sync: check driver and CANN (vimectl doctor, "
    "driver.cann), and that trainer and engine are in one container.",
)


def text(recipe: Recipe) -> str:
    """Return the notice for a run on NPUs; empty for other devices."""
    if recipe.cluster.device != "npu":
        return ""
    steps = [f"  {step.description}: {step.untested}" for step in UNTESTED_STEPS.values()]
    kept = sum(held.nbytes for held in always_held(recipe).values())
    values = {"kept": size(kept), "difference": metrics.LOGPROB_ABS_DIFF_MEAN}
    signs = [f"  {sign.format_map(values)}" for sign in SIGNS]
    return "\n".join(
        ["Not tested on an NPU yet:", *steps, "Watch for these in the first steps:", *signs, REPORT_REQUEST]
    )


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
