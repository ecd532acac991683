"""Run qwen3-4b-tp2 at a tiny size on a machine of CANN stand-ins, and read what it left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import script
from harness.npu.machine import Machine

STEPS = 3
# vllm-ascend gives each of its HCCL groups two buffers of 200 MiB (vllm_ascend/utils.py, hccl_buffer_size).
CHIP_BYTES = 4 << 30
# Enough tokens for the logits to take a good part of the trainer's memory, as those of a large model do.
MODEL = {"vocab_size": 16384}
SETTINGS: dict[str, Any] = {
    "rollout.max_prompt_tokens": 16,
    "rollout.max_response_tokens": 24,
    "rollout.eager": True,
    "rollout.kv_cache_bytes": 128 << 20,
    "data.apply_chat_template": False,
    "data.reward": "operator:countOf",  # how many 1s the response has
    "train.tokens_per_micro_batch": 400,  # one micro-batch of all responses
    "algorithm.prompts_per_step": 4,
    "algorithm.samples_per_prompt": 4,
    "optimizer.lr": 0.01,
    "sync.bucket_bytes": 20 << 20,  # a segment of torch's allocator
    "checkpoint.every": 0,
    "evaluation.every": 0,
    "memory.host_bytes": 1 << 30,
    "modes.smoke.steps": STEPS,
    "env.HCCL_BUFFSIZE": "1",  # MiB, of the trainer's groups
}


@dataclass
class WholeRun:
    """A run that has ended, and the machine that it ran on."""

    code: int
    output: str
    directory: Path
    machine: Machine

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of ``metrics.jsonl``."""
        return self._lines("metrics.jsonl")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of ``events.jsonl``."""
        return self._lines("events.jsonl")

    @property
    def roles(self) -> dict[int, str]:
        """The role and rank of each process of the run, by process id."""
        return {
            event["pid"]: f"{event['role']} {event['rank']}"
            for event in self.events
            if event["kind"] == "process"
        }

    def _lines(self, name: str) -> list[Any]:
        lines = (self.directory / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def launch(folder: Path, checkpoint: Path, machine: Machine, chips: int, *before: Path) -> WholeRun:
    """Run the recipe on all chips of the machine.

    Args:
        folder: is created; the run directory is in it.
        checkpoint: of a model with the configuration ``MODEL``.
        before: folders that come first on the path of every process.
    """
    folder.mkdir()
    data = folder / "data.jsonl"
    lines = [{"prompt": f"t{20 + i} t{30 + i}", "label": "1"} for i in range(16)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = {"cluster.devices_per_node": chips, "model.path": str(checkpoint), "data.path": str(data)}
    command = [
        sys.executable,
        script("runs.launch_recipe"),
        folder / "run",
        "qwen3-4b-tp2",
        *(f"{key}={json.dumps(value)}" for key, value in (SETTINGS | own).items()),
    ]
    done = subprocess.run(
        command,
        env=machine.environment(*before, XDG_STATE_HOME=str(folder / "state")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    logs = "".join(
        f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}\n"
        for path in (folder / "run" / "logs").glob("*.log")
    )
    return WholeRun(done.returncode, done.stdout + logs, folder / "run", machine)
