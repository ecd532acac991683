"""Measure the start-up of the default recipe up to the first rollout, by part, and the import times in it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from vime_runtime.spec import events, metrics
from vime_runtime.spec.run_paths import RunPaths

# What each kind of process imports first. Imports take most of the start-up.
IMPORTS = {
    "driver": "vime_runtime.cluster.ray_cluster",
    "trainer rank": "vime_runtime.trainer.trainer",
    "engine and each of its workers": "vime_runtime.rollout.engine",
}


def main() -> None:
    """Print the seconds and the share of every part."""
    parts = start_up()
    total = sum(parts.values())
    print(f"{total:.1f} s from the command to the first response of the default recipe")
    for name, seconds in parts.items():
        print(f"  {name:28} {seconds:5.1f} s  {seconds / total:4.0%}")
    for who, module in IMPORTS.items():
        seconds = imported(module)
        print(f"import time, {who}: {seconds:.1f} s  {seconds / total:.0%}", flush=True)


def start_up() -> dict[str, float]:
    """Run one step and return the seconds of each part of the start-up, in order."""
    with tempfile.TemporaryDirectory(prefix="vime-b-", dir="/tmp") as folder:
        run_dir = Path(folder) / "run"
        began = time.time()
        command = [sys.executable, "-m", "vimectl", "run", "recipe", "qwen3-tiny-tp2", "--yes"]
        subprocess.run(
            [*command, "--mode", "smoke", "--set", "modes.smoke.steps=1", "--run-dir", str(run_dir)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        lines = RunPaths(run_dir).events.read_text(encoding="utf-8").splitlines()
    phases = [event for event in map(json.loads, lines) if event["kind"] == events.PHASE]
    entered = {event["detail"] or event["phase"]: event["time"] for event in phases}
    starts = {"checks and launch": began, **entered}
    names = list(starts)[: list(starts).index(metrics.TRAIN)]
    times = [starts[name] for name in [*names, metrics.TRAIN]]
    return {name: after - before for name, (before, after) in zip(names, pairwise(times), strict=True)}


def imported(module: str) -> float:
    """Return the seconds that a new interpreter takes to import a module as a run does."""
    began = time.perf_counter()
    program = f"from vime_runtime.gc_pause import gc_paused\nwith gc_paused():\n    import {module}"
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began
