"""Runs with TP=2 that fail, each for another reason, and what the summary must say about it.

    python -m harness.runs.failed_starts [NAME]...

runs the cases with these names, or all of them, and prints how each one ended.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.needs import mounted_disk
from harness.runs.recipe_run import VIMECTL, wait_for_phase
from vimectl.recipes.resolve import resolve
from vimectl.runs.run_directory import RunDirectory

FAULTS = Path(__file__).parent / "faults"


@dataclass(frozen=True)
class FailedStart:
    """One fault.

    Attributes:
        reason: a pattern of the reason in the summary.
        where: a pattern of the place in the summary.
        settings: of the recipe.
        fault: what ``faults/sitecustomize.py`` changes.
        phase: in which ``act`` is called, with the run directory.
        disk: size of the file system of the run directory.
        is_loss: a process is lost, so that the run is started again and finishes.
    """

    name: str
    reason: str
    where: str = ""
    settings: tuple[str, ...] = ()
    fault: str = ""
    phase: str = ""
    act: Callable[[Path], None] = lambda run_dir: None
    disk: str = ""
    is_loss: bool = False


def kill(role: str) -> Callable[[Path], None]:
    """Kill the last process of this role. It must have the priority of this process, not Ray's default."""

    def act(run_dir: Path) -> None:
        pids = [entry["pid"] for entry in RunDirectory(run_dir).processes() if entry["role"] == role]
        niceness = [os.getpriority(os.PRIO_PROCESS, pid) for pid in (pids[-1], 0)]
        os.kill(pids[-1], signal.SIGKILL)
        assert niceness[0] == niceness[1], f"{role} has niceness {niceness[0]}"

    return act


def replace_checkpoints(run_dir: Path) -> None:
    """Leave a file where the run wants to write training states."""
    (run_dir / "checkpoints").rename(run_dir / "moved")
    (run_dir / "checkpoints").touch()


def truncate_weights(run_dir: Path) -> None:
    os.truncate(run_dir.parent / "model" / "model.safetensors", 4096)


REWARD = "faulty_rewards.py:"
CASES = [
    FailedStart(
        "reward-raises", "KeyError", REWARD, ("data.reward=faulty_rewards:key_error", "evaluation.every=0")
    ),
    FailedStart(
        "reward-exits", "SystemExit", REWARD, ("data.reward=faulty_rewards:system_exit", "evaluation.every=0")
    ),
    FailedStart(
        "reward-is-nan", "nan", settings=("data.reward=faulty_rewards:not_a_number", "evaluation.every=0")
    ),
    FailedStart("evaluation-raises", "KeyError", REWARD, ("data.reward=faulty_rewards:key_error",)),
    FailedStart("model-damaged", "(?i)safetensor", phase="reading the data", act=truncate_weights),
    FailedStart(
        "gradient-is-nan",
        "FloatingPointError: the gradient is NaN",
        r"sitecustomize.py:\d+",
        fault="gradient",
    ),
    FailedStart("kv-cache-too-small", "(?i)kv cache", settings=("rollout.kv_cache_bytes=4096",)),
    FailedStart("engine-argument", "(?i)quantization", settings=("rollout.engine.quantization=odd",)),
    FailedStart(
        "prompts-too-long", "(?i)prompt", settings=("rollout.max_prompt_tokens=2", "data.overlong=error")
    ),
    FailedStart("disk-full", "No space left on device", settings=("checkpoint.every=1",), disk="3m"),
    FailedStart(
        "checkpoint-unwritable",
        "checkpoints",
        settings=("checkpoint.every=1",),
        phase="building the engine",
        act=replace_checkpoints,
    ),
    FailedStart("variable-missing", "VIME_COLOCATE", settings=("env.VIME_COLOCATE=0",)),
    FailedStart(
        "engine-worker-raises",
        "ValueError: the weights are odd",
        r"sitecustomize.py:\d+",
        fault="engine worker",
    ),
    FailedStart(
        "new-engine-worker-raises",
        "LookupError: no such tensor",
        r"sitecustomize.py:\d+",
        fault="new engine worker",
    ),
    FailedStart(
        "engine-worker-killed",
        r"engine worker 1 \(pid \d+\) was killed by SIGKILL",
        phase="train",
        act=kill("engine worker"),
        is_loss=True,
    ),
    FailedStart(
        "trainer-killed",
        r"trainer rank 1 \(pid \d+\) was killed by SIGKILL",
        phase="rollout",
        act=kill("trainer rank"),
        is_loss=True,
    ),
    FailedStart(
        "gcs-killed", r"GCS \(pid \d+\) was killed by SIGKILL", phase="train", act=kill("GCS"), is_loss=True
    ),
]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``reason`` is that of the restart if there was one."""

    exit_code: int
    output: str
    summary: dict[str, Any]
    reason: str
    is_right: bool

    def __str__(self) -> str:
        where = f", {self.summary['where']}" if self.summary.get("where") else ""
        return f"{'ok' if self.is_right else 'WRONG'}: exit {self.exit_code}: {self.reason}{where}"


def run_failed_start(case: FailedStart, folder: Path) -> Outcome:
    """Run a case in an empty folder. The run may be restarted once."""
    settings = ["cluster.restarts=1", *case.settings]
    with ExitStack() as stack:
        parent = stack.enter_context(mounted_disk(folder / "disk", case.disk)) if case.disk else folder
        run_dir = parent / "run"
        if case.act is truncate_weights:
            model = Path(resolve("qwen3-tiny-tp2", "smoke", []).recipe.model.path)
            shutil.copytree(model, folder / "model")
            settings.append(f"model.path={folder / 'model'}")
        environment = os.environ | {"FAILED_START": case.fault}
        paths = [str(FAULTS), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        command = [*VIMECTL, "run", "recipe", "qwen3-tiny-tp2", f"--run-dir={run_dir}", "--yes"]
        command += ["--mode", "test" if case.is_loss else "smoke"]
        run = subprocess.Popen(
            [*command, *(f"--set={setting}" for setting in settings)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if case.phase:
            wait_for_phase(case.phase, run_dir / "events.jsonl", run)
            case.act(run_dir)
        output = run.communicate()[0].decode()
        summary = RunDirectory(run_dir).summary or {}
    restarts = [line for line in output.splitlines() if line.startswith("restart ")]
    reason = restarts[0] if restarts else str(summary.get("reason", output))
    is_right = (
        re.search(case.reason, reason) is not None
        and re.search(case.where, str(summary.get("where", ""))) is not None
        and len(restarts) == int(case.is_loss)
        and (run.returncode == 0) == case.is_loss
    )
    return Outcome(run.returncode, output, summary, reason, is_right)


if __name__ == "__main__":
    for case in CASES:
        if not sys.argv[1:] or case.name in sys.argv[1:]:
            with tempfile.TemporaryDirectory(prefix="failed-start-") as folder:
                found = run_failed_start(case, Path(folder))
            print(case.name, found, "" if found.is_right else found.output, flush=True)
