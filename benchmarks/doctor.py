"""Measure `vimectl doctor` on this machine: without imports, and with the import of every package."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

DOCTOR = (sys.executable, "-m", "vimectl", "doctor", "--recipe", "qwen3-tiny-tp2")


def main() -> None:
    """Print the seconds, and how many of them a processor worked: other programs make the rest longer."""
    report("vimectl doctor (at most 1 s)", 9)
    report("vimectl doctor --imports (at most 15 s)", 3, "--imports")


def report(what: str, rounds: int, *options: str) -> None:
    """Print the medians of several rounds, without the first one."""
    measured = [seconds(*options) for _ in range(rounds + 1)][1:]
    elapsed, worked = (statistics.median(column) for column in zip(*measured, strict=True))
    print(f"{what}: {elapsed:.2f} s, processor {worked:.2f} s", flush=True)


def seconds(*options: str) -> tuple[float, float]:
    """Return how long the doctor takes, and the time of processors in it. Its verdict does not matter."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([*DOCTOR, *options], check=False, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - began, os.times()
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    return elapsed, worked
