"""Run a recipe for real: the installed command, Megatron-core, vLLM, Ray."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.process_roles import DRIVER

from harness.runs import shared_memory
from vimectl.runs.run_directory import RunDirectory
from vimectl.runs.run_log import JsonLineFollower

VIMECTL = [sys.executable, "-m", "vimectl"]

# Seconds; long enough for the first run of a version, which prepares its model, on two busy cores.
START_LIMIT = 900


@dataclass
class RecipeRun:
    """A run that has ended: its exit code, its output, its directory, and what it left in /dev/shm."""

    code: int
    output: str
    directory: Path
    left_in_shm: set[str]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The metrics, one row per step."""
        return [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return json.loads((self.directory / "summary.json").read_text())


def run_recipe(
    directory: Path,
    *arguments: str,
    recipe: str = "qwen3-tiny-tp2",
    environment: Mapping[str, str] | None = None,
) -> RecipeRun:
    """Run a recipe to its end."""
    before = shared_memory.list_files()
    done = subprocess.run(
        [*VIMECTL, "run", "recipe", recipe, "--run-dir", str(directory), "--yes", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,  # ends a hang; the real model takes minutes, on a busy machine many
    )
    left = shared_memory.left_files(before)
    # A process of another test that was killed may have left its own, which torch names after the process.
    own = {f"torch_{entry['pid']}_" for entry in RunDirectory(directory).log.processes}
    left = {name for name in left if not name.startswith("torch_") or name.startswith(tuple(own))}
    return RecipeRun(done.returncode, done.stdout, directory, left)


def processes_of(run_dir: Path) -> list[int]:
    """Return the processes that have a file of the run open or name it in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            files = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
        except OSError:
            continue  # it has exited
        if str(run_dir).encode() in command or any(name.startswith(str(run_dir)) for name in files):
            found.append(int(entry.name))
    return found


def wait_for_phase(phase: str, events: Path, run: subprocess.Popen[bytes], step: int | None = None) -> None:
    """Wait for an event with ``phase`` as its phase or detail, and with ``step`` if given."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        assert run.poll() is None, run.stdout.read().decode() if run.stdout else ""
        if events.exists():
            seen = [json.loads(line) for line in events.read_text().splitlines() if line.endswith("}")]
            named = [e for e in seen if phase in (e.get("phase"), e.get("detail"))]
            if any(step in (None, event.get("step")) for event in named):
                return
        time.sleep(0.05)
    pytest.fail(f"the run did not reach {phase!r} within {START_LIMIT} s")


def stop_driver_in_phase(
    run: subprocess.Popen[bytes], run_dir: Path, phase: str, detail: str, step: int
) -> int:
    """Stop the driver (SIGSTOP) when a phase of a step, or of a later one, begins; return its process id.

    The start-up is the same phase in every step. ``detail`` is a part of the event's detail.
    """
    deadline = time.monotonic() + START_LIMIT
    events = JsonLineFollower(run_dir / "events.jsonl")
    driver = 0
    while time.monotonic() < deadline:
        if run.poll() is not None:
            pytest.fail(f"the run ended before {phase}: {RunDirectory(run_dir).summary}")
        for _, event in events.read():
            if event["kind"] == "process" and event["role"] == DRIVER:
                driver = event["pid"]
            begins = event["kind"] == "phase" and event["phase"] == phase and detail in event["detail"]
            if begins and (phase == "start-up" or event["step"] >= step):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(driver, signal.SIGSTOP)
                return driver
        time.sleep(0.003)
    pytest.fail(f"{phase} did not begin within {START_LIMIT} s")


def resume_driver(driver: int) -> None:
    """Let a stopped driver continue, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(driver, signal.SIGCONT)
