"""Run the real thing: the installed command, real Megatron-core, real vLLM, real Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VIMECTL = [sys.executable, "-m", "vimectl"]


@dataclass
class Run:
    """A run that ended: its exit code, what it printed, and what it left in its directory."""

    code: int
    output: str
    directory: Path
    left_in_shm: set[str]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """One row a step."""
        return [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """What the launcher says of the run."""
        return json.loads((self.directory / "summary.json").read_text())


def run_recipe(
    directory: Path,
    *arguments: str,
    recipe: str = "qwen3-tiny-tp2",
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run a recipe to its end; the output goes into the assertion message of a test that fails."""
    before = shared_memory_files()
    done = subprocess.run(
        [*VIMECTL, "run", "recipe", recipe, "--run-dir", str(directory), "--yes", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    return Run(done.returncode, done.stdout, directory, shared_memory_files() - before)


def shared_memory_files() -> set[str]:
    """Everything in /dev/shm."""
    return {entry.name for entry in Path("/dev/shm").iterdir()}
