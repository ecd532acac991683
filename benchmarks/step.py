"""One colocated step, by phase, against TRL's ``GRPOTrainer`` with transformers' generate, on the CPU.

Both use the same model, batch, response length and group size, and fp32. The runtime has one trainer rank
with all cores, since TRL is one process. The two alternate step by step, so that other load on the machine
affects both. TRL is not part of the stack: it is installed in ``.bench``, which only its own process imports.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from vime_runtime.spec import metrics
from vime_runtime.spec.run_paths import RunPaths

from vimectl.recipes.resolve import resolve
from vimectl.runs.plan import RunPlan, make_plan, write_run_directory
from vimectl.runs.progress import PlainView
from vimectl.runs.read_data import read_data
from vimectl.util.host import Host
from vimectl.util.scratch_directory import scratch_directory

PROGRAMS = Path(__file__).with_name("step_programs")
TRL = Path(__file__).parent.parent / ".bench"

WARM_UP, STEPS = 3, 12
PHASES = (metrics.ROLLOUT, metrics.TRAIN, metrics.SYNC, metrics.SLEEP, metrics.WAKE)


@dataclass(frozen=True)
class Case:
    """The work of a step: ``shape`` is one of ``checkpoint.SHAPES``, ``tokens`` those of a response."""

    shape: str
    prompts: int
    prompt_tokens: int
    samples: int = 8
    tokens: int = 16


CASES = (Case("3.2 M", 16, 13), Case("32 M", 16, 13), Case("3.2 M", 4, 512))


def main() -> None:
    """Measure every case."""
    print(f"fp32, {STEPS} steps")
    for case in CASES:
        compare(case)


def compare(case: Case) -> None:
    """Print the median seconds of both programs, those of the runtime by phase, and the ratio."""
    # This process needs torch only to write the checkpoint.
    import torch

    from benchmarks import checkpoint

    # A private folder with a short path: the path of a socket has a limit.
    with tempfile.TemporaryDirectory(prefix="vime-b-", dir="/tmp") as name:  # nosec B108
        folder = Path(name)
        checkpoint.write(folder, case.shape, torch.float32, case.prompt_tokens)
        with vime(folder, case) as vime_pipe, trl(folder, case) as trl_pipe:
            rows, seconds = alternate({"vime": vime_pipe, "TRL": trl_pipe})
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    parts = {phase: statistics.median(row[metrics.seconds(phase)] for row in rows) for phase in PHASES}
    work = f"{case.prompts} prompts of {case.prompt_tokens} tokens, {case.samples} samples of {case.tokens}"
    print(f"{case.shape} parameters, {work}")
    print("  " + ", ".join(f"{name} {median:.2f} s" for name, median in medians.items()))
    print("  vime: " + ", ".join(f"{phase} {value:.2f}" for phase, value in parts.items()))
    print(f"  vime / TRL: {medians['vime'] / medians['TRL']:.2f}", flush=True)


def alternate(pipes: dict[str, Connection]) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """Let each program take a step while the other one waits, repeatedly.

    Returns:
        metrics of the runtime, and the seconds of every step by program, both without the warm-up steps.
    """
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    rows = []
    for _ in range(WARM_UP + STEPS):
        for name, pipe in pipes.items():
            began = time.perf_counter()
            pipe.send("step")
            row = pipe.recv()
            seconds[name].append(time.perf_counter() - began)
            if name == "vime":
                rows.append(row)
    return rows[WARM_UP:], {name: taken[WARM_UP:] for name, taken in seconds.items()}


@contextmanager
def vime(folder: Path, case: Case) -> Iterator[Connection]:
    """Start the runtime; it has taken one step and waits."""
    with read_data(_plan(folder, case), PlainView(Console(quiet=True))) as plan:
        write_run_directory(plan, {})
    paths = RunPaths(plan.run_dir)
    arguments, environment = [str(paths.run_file)], plan.environment["driver"]
    with (
        scratch_directory(plan.scratch_dir),
        started(str(PROGRAMS / "vime.py"), arguments, environment, paths.driver_log) as pipe,
    ):
        yield pipe


@contextmanager
def trl(folder: Path, case: Case) -> Iterator[Connection]:
    """Start TRL's trainer; it has taken one step and waits."""
    numbers = map(str, (WARM_UP + STEPS + 2, case.prompts, case.samples, case.tokens))
    arguments = [str(folder / "model"), str(folder / "problems.jsonl"), *numbers]
    environment = {"PYTHONPATH": str(TRL), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with started(str(PROGRAMS / "trl_grpo.py"), arguments, environment, folder / "trl.log") as pipe:
        yield pipe


@contextmanager
def started(
    program: str, arguments: list[str], environment: dict[str, str], log: Path
) -> Iterator[Connection]:
    """Start a program and yield its pipe; terminate it afterwards."""
    here, there = Pipe()
    with log.open("w") as output, here:
        process = subprocess.Popen(
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
            here.close()  # a program that still waits gets EOFError
            process.wait()


def _plan(folder: Path, case: Case) -> RunPlan:
    settings = {
        "cluster.devices_per_node": 1,
        "train.tensor_parallel": 1,
        "rollout.tensor_parallel": 1,
        "model.path": folder / "model",
        "model.dtype": "float32",
        "data.path": folder / "problems.jsonl",
        "data.reward": "evenness:evenness",
        "env.PYTHONPATH": PROGRAMS,
        # One micro-batch, as TRL does.
        "train.tokens_per_micro_batch": case.prompts * (case.prompt_tokens + case.samples * case.tokens),
        "rollout.max_prompt_tokens": case.prompt_tokens,
        "rollout.max_response_tokens": case.tokens,
        "rollout.kv_cache_bytes": 256 * 1024**2,
        "algorithm.prompts_per_step": case.prompts,
        "evaluation.every": 0,  # TRL does neither
        "checkpoint.every": 0,
        "algorithm.samples_per_prompt": case.samples,
        "modes.test.steps": WARM_UP + STEPS + 2,
    }
    assignments = [f"{key}={value}" for key, value in settings.items()]
    return make_plan(resolve("qwen3-tiny-tp2", "test", assignments), Host(), folder / "run")
