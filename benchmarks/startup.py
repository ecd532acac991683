"""Measure the start-up of the default recipe up to the first rollout: parts, CPU time, imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from vime_runtime.spec import events, metrics
from vime_runtime.spec.run_paths import RunPaths

# What each kind of process imports first. Imports take most of the start-up.
IMPORTS = {
    "driver": "import vime_runtime.cluster.ray_cluster",
    "trainer rank": "with without_inductor(): import vime_runtime.trainer.trainer",
    "engine": "with without_inductor(): import vime_runtime.rollout.engine",
    "engine worker server": "import vime_runtime.rollout.worker_imports",
}
# Seconds between two looks at the processes. The CPU time of one that exits in between is incomplete.
INTERVAL = 0.1


def main() -> None:
    """Print the seconds and the share of every part, and the CPU seconds of every kind of process."""
    parts, cpu = start_up()
    total = sum(parts.values())
    print(f"{total:.1f} s from the command to the first response of the default recipe")
    for name, seconds in parts.items():
        print(f"  {name:28} {seconds:5.1f} s  {seconds / total:4.0%}")
    print(f"{cpu.total():.1f} s of CPU time in it, on {len(os.sched_getaffinity(0))} cores")
    for name, seconds in cpu.most_common():
        print(f"  {name:28} {seconds:5.1f} s  {seconds / cpu.total():4.0%}")
    for who, statement in IMPORTS.items():
        print(f"CPU time of imports, {who}: {imported(statement):.1f} s", flush=True)


def start_up() -> tuple[dict[str, float], Counter[str]]:
    """Run one step.

    Returns:
        the seconds of each part of the start-up, in order, and the CPU seconds of each kind of process in it.
    """
    # A private folder with a short path: the path of a socket has a limit.
    with tempfile.TemporaryDirectory(prefix="vime-b-", dir="/tmp") as folder:  # nosec B108
        run_dir = Path(folder) / "run"
        began = time.time()
        command = [sys.executable, "-m", "vimectl", "run", "recipe", "qwen3-tiny-tp2", "--yes"]
        run = subprocess.Popen(
            [*command, "--mode", "smoke", "--set", "modes.smoke.steps=1", "--run-dir", str(run_dir)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            cpu_times = _watch(run, run_dir)
            if run.wait():
                raise SystemExit(f"the run failed with exit code {run.returncode}")
        finally:
            if run.poll() is None:
                run.terminate()
                run.wait()
        log = read_events(run_dir)
    entered = {event["detail"] or event["phase"]: event["time"] for event in log if _is_phase(event)}
    starts = {"checks and launch": began, **entered}
    names = list(starts)[: list(starts).index(metrics.TRAIN)]
    times = [starts[name] for name in [*names, metrics.TRAIN]]
    parts = {name: after - before for name, (before, after) in zip(names, pairwise(times), strict=True)}
    roles = {run.pid: "launcher"}
    roles |= {event["pid"]: event["role"] for event in log if event["kind"] == events.PROCESS}
    cpu: Counter[str] = Counter()
    for pid, seconds in cpu_times.items():
        cpu[roles.get(pid, "other processes")] += seconds
    return parts, cpu


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """Return the complete lines of the run's event log so far."""
    try:
        text = RunPaths(run_dir).events.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _is_phase(event: dict[str, Any], phase: str | None = None) -> bool:
    return event["kind"] == events.PHASE and phase in (None, event["phase"])


def _watch(run: subprocess.Popen[bytes], run_dir: Path) -> dict[int, float]:
    """Return the CPU seconds of the run's processes by id, at the first training step or at the end."""
    launcher, seconds = psutil.Process(run.pid), dict[int, float]()
    while run.poll() is None and not any(_is_phase(event, metrics.TRAIN) for event in read_events(run_dir)):
        for process in [launcher, *launcher.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds[process.pid] = times.user + times.system
        time.sleep(INTERVAL)
    return seconds


def imported(statement: str) -> float:
    """Return the CPU seconds in which a new interpreter imports something as a run on a CPU does."""
    program = (
        "from vime_runtime.eager_only import hide_triton, without_inductor\n"
        "from vime_runtime.gc_pause import gc_paused\n"
        f"hide_triton()\nwith gc_paused():\n    {statement}"
    )
    before = os.times()
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
