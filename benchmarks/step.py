"""One colocated step, by phase, against TRL's ``GRPOTrainer`` with transformers' generate, on the CPU.

Same model, batch, response length and group size, fp32 on both sides, and one rank with all cores on
ours, as TRL is one process. The two sides take their steps in turn, each while the other one waits,
so that what else the machine does hits both. TRL is not part of the stack: it lies in ``.bench``,
which only its own process sees.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from vimectl.recipes.resolve import resolve
from vimectl.runs.plan import RunPlan, make_plan, write_run_directory
from vimectl.util.host import Host

SIDES = Path(__file__).with_name("sides")
TRL = Path(__file__).parent.parent / ".bench"

PROMPTS, SAMPLES, TOKENS = 16, 8, 16
WARM_UP, STEPS = 3, 12
PHASES = ("rollout", "train", "sync", "sleep", "wake")


def main() -> None:
    """Measure both shapes."""
    # torch is imported only where it is needed: here it would take memory and nothing else.
    from benchmarks.checkpoint import SHAPES

    print(f"{PROMPTS * SAMPLES} samples of {TOKENS} tokens, groups of {SAMPLES}, fp32, {STEPS} steps")
    for shape in SHAPES:
        compare(shape)


def compare(shape: str) -> None:
    """Print the medians of both sides, ours by phase too, and the ratio."""
    import torch

    from benchmarks import checkpoint

    with tempfile.TemporaryDirectory(prefix="vime-b-", dir="/tmp") as name:
        folder = Path(name)
        checkpoint.write(folder, shape, torch.float32)
        with ours(folder) as our_side, trl(folder) as their_side:
            rows, seconds = take_turns({"ours": our_side, "TRL": their_side})
    medians = {side: statistics.median(taken) for side, taken in seconds.items()}
    parts = {phase: statistics.median(row[f"{phase}/seconds"] for row in rows) for phase in PHASES}
    print(f"{shape} parameters: " + ", ".join(f"{side} {median:.2f} s" for side, median in medians.items()))
    print("  ours: " + ", ".join(f"{phase} {value:.2f}" for phase, value in parts.items()))
    print(f"  ours / TRL: {medians['ours'] / medians['TRL']:.2f}", flush=True)


def take_turns(sides: dict[str, Connection]) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """Let each side take a step while the other one waits, again and again.

    Returns:
        our metrics, and the seconds of every step by side; steps to warm up are left out.
    """
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    rows = []
    for _ in range(WARM_UP + STEPS):
        for side, connection in sides.items():
            began = time.perf_counter()
            connection.send("go on")
            row = connection.recv()
            seconds[side].append(time.perf_counter() - began)
            if side == "ours":
                rows.append(row)
    return rows[WARM_UP:], {side: taken[WARM_UP:] for side, taken in seconds.items()}


@contextmanager
def ours(folder: Path) -> Iterator[Connection]:
    """Our runtime, which has taken one step and waits."""
    plan = _plan(folder)
    write_run_directory(plan, {})
    plan.scratch_dir.mkdir(mode=0o700)
    try:
        log = plan.run_dir / "logs" / "runtime.log"
        run_file = str(plan.run_dir / "resolved.json")
        with side(str(SIDES / "ours.py"), [run_file], plan.environment["driver"], log) as turn:
            yield turn
    finally:
        shutil.rmtree(plan.scratch_dir, ignore_errors=True)


@contextmanager
def trl(folder: Path) -> Iterator[Connection]:
    """TRL's trainer, which has taken one step and waits."""
    numbers = map(str, (WARM_UP + STEPS + 2, PROMPTS, SAMPLES, TOKENS))
    arguments = [str(folder / "model"), str(folder / "problems.jsonl"), *numbers]
    environment = {"PYTHONPATH": str(TRL), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with side(str(SIDES / "trl_grpo.py"), arguments, environment, folder / "trl.log") as turn:
        yield turn


@contextmanager
def side(program: str, arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[Connection]:
    """Start one side's program and yield where it reports its steps; it is ended afterwards."""
    here, there = Pipe()
    with log.open("w") as output, here:
        process = subprocess.Popen(
            # The run file stays last: by that others on this machine see whose processes these are.
            [sys.executable, program, str(there.fileno()), *arguments],
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            pass_fds=[there.fileno()],
        )
        there.close()
        try:
            here.recv()
            yield here
        except EOFError:
            sys.exit(f"{program} ended early: {log.read_text(errors='replace')[-2000:]}")
        finally:
            process.terminate()
            here.close()  # whoever still waits for a turn finds that there will be none
            process.wait()


def _plan(folder: Path) -> RunPlan:
    from benchmarks.checkpoint import PROMPT_TOKENS

    settings = {
        "cluster.devices_per_node": 1,
        "train.tensor_parallel": 1,
        "rollout.tensor_parallel": 1,
        "model.path": folder / "model",
        "model.dtype": "float32",
        "data.path": folder / "problems.jsonl",
        "data.reward": "evenness:evenness",
        # All at a time, as TRL does.
        "train.tokens_per_micro_batch": PROMPTS * (PROMPT_TOKENS + SAMPLES * TOKENS),
        "rollout.max_response_tokens": TOKENS,
        "rollout.kv_cache_bytes": 256 * 1024**2,
        "algorithm.prompts_per_step": PROMPTS,
        "evaluation.every": 0,  # TRL does neither
        "checkpoint.every": 0,
        "algorithm.samples_per_prompt": SAMPLES,
        "modes.test.steps": WARM_UP + STEPS + 2,
    }
    assignments = [f"{key}={value}" for key, value in settings.items()]
    return make_plan(resolve("qwen3-tiny-tp2", "test", assignments), Host(), folder / "run")
