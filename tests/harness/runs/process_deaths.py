"""Signal one process of a real run in one phase and check its end: one row of docs/reference/deaths.md.

    python -m harness.runs.process_deaths --table FILE

prints the table of the results in a file of JSON lines. Each case is a run of the default recipe; the tests
in e2e/test_deaths.py append its result and skip cases that are in the file. The event log is read every few
milliseconds.
When the phase begins, the driver is stopped by SIGSTOP until the signal is sent, so that even a phase of a
few milliseconds has not ended by then.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from harness import REPOSITORY
from harness.runs import shared_memory
from harness.runs.recipe_run import START_LIMIT, VIMECTL, resume_driver, stop_driver_in_phase
from vimectl.runs.run_directory import RunDirectory

RESULTS = REPOSITORY / "deaths.jsonl"

KINDS = {
    "launcher": "launcher",
    "supervisor": "supervisor",
    "driver": "runtime driver",
    "trainer": "trainer rank",
    "engine": "engine",
    "engine-worker": "engine worker",
    "engine-worker-server": "engine worker server",
    "raylet": "raylet",
    "gcs": "GCS",
}
SIGNALS = ("SIGTERM", "SIGKILL", "SIGSTOP")
# Phase and detail of the event at which the signal is sent. In the start-up that is while the engine is
# built, when every process exists.
PHASES = {
    "start-up": ("start-up", "building the engine"),
    "rollout": ("rollout", ""),
    "sync": ("sync", ""),
    "train": ("train", ""),
    "checkpoint": ("checkpoint", ""),
}
# The step in which the signal is sent: not the first, which differs from the others, and after a checkpoint.
STEP = 3

ONE_DEVICE = ["cluster.devices_per_node=1", "train.tensor_parallel=1", "rollout.tensor_parallel=1"]
# Only a stopped process needs a short timeout. No event is written while the engine is built, so a busy
# machine needs a higher VIMECTL_DEATHS_HANG.
HANG_TIMEOUT = float(os.environ.get("VIMECTL_DEATHS_HANG", "30"))
NO_HANG = 600.0
EXIT_LIMIT = 15.0


@dataclass(frozen=True)
class SignalCase:
    """Which process gets which signal in which phase."""

    kind: str
    signal: str
    phase: str

    @property
    def hang_timeout(self) -> float:
        """``cluster.hang_timeout`` of the run."""
        return HANG_TIMEOUT if self.signal == "SIGSTOP" and not self.run_continues else NO_HANG

    @property
    def run_continues(self) -> bool:
        """True for a stopped launcher: the run does not need it."""
        return self.kind == "launcher" and self.signal == "SIGSTOP"


@dataclass(frozen=True)
class SignalResult(SignalCase):
    """The result. ``seconds``: from the signal, or from the hang timeout after it, until all had exited."""

    seconds: float
    exit_code: int | None
    summary_code: int | None
    cause: str
    checkpoint: str | None
    left: list[str]
    ok: bool


def cases(kinds: list[str], signals: list[str], phases: list[str]) -> Iterator[SignalCase]:
    """Yield all combinations. Workers of an engine and their server exist once the engine is built."""
    for kind, signum, phase in itertools.product(kinds, signals, phases):
        if phase != "start-up" or not kind.startswith("engine-worker"):
            yield SignalCase(kind, signum, phase)


def run_case(case: SignalCase, folder: Path) -> SignalResult:
    """Run one case in an empty folder."""
    run_dir = folder / "run"
    sets = [] if case.kind.startswith("engine-worker") else ONE_DEVICE
    sets = [*sets, f"cluster.hang_timeout={case.hang_timeout}"]
    if case.phase == "checkpoint":
        sets.append("checkpoint.every=1")
    mode = "smoke" if case.run_continues else "test"
    command = [*VIMECTL, "run", "recipe", "qwen3-tiny-tp2", f"--mode={mode}", f"--run-dir={run_dir}", "--yes"]
    with (folder / "output").open("wb") as output:
        launcher = subprocess.Popen(
            [*command, *(f"--set={assignment}" for assignment in sets)],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    tree: list[psutil.Process] = []
    try:
        step = 1 if case.run_continues else STEP
        driver = stop_driver_in_phase(launcher, run_dir, *PHASES[case.phase], step)
        tree = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
        shm = shared_memory.used_by(process.pid for process in tree)
        run = RunDirectory(run_dir)
        victim = [entry["pid"] for entry in run.processes() if entry["role"] == KINDS[case.kind]][-1]
        os.kill(victim, getattr(signal, case.signal))
        sent = time.monotonic()
        if case.kind != "driver" or case.signal != "SIGSTOP":
            resume_driver(driver)
        exit_code = wait_for_exit(case, launcher, tree, sent)
    finally:
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        launcher.kill()
        launcher.wait()
    waited = case.hang_timeout if case.hang_timeout != NO_HANG else 0
    seconds = time.monotonic() - sent
    left = [f"pid {p.pid}" for p in tree if is_running(p)]
    left += [str(path) for path in Path("/dev/shm").iterdir() if path.stat().st_ino in shm]
    scratch = run.document["scratch_dir"]
    left += [scratch] if Path(scratch).exists() else []
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    summary = run.summary or {}
    return SignalResult(
        **asdict(case),
        seconds=round(seconds, 1),
        exit_code=exit_code,
        summary_code=summary.get("exit_code"),
        cause=summary.get("reason", "no summary.json"),
        checkpoint=summary.get("last_checkpoint"),
        left=left,
        ok=not left and is_correct(case, exit_code, summary, victim, seconds - waited),
    )


def is_correct(
    case: SignalCase, exit_code: int | None, summary: dict[str, Any], victim: int, seconds: float
) -> bool:
    """Return True if the run ended in time, with the right exit code, and named the right process."""
    if case.run_continues:
        return exit_code == summary.get("exit_code") == 0
    if case.signal == "SIGTERM" and case.kind in ("launcher", "supervisor"):
        return exit_code == summary.get("exit_code") == 130 and seconds <= EXIT_LIMIT
    named = str(victim) in str(summary.get("reason"))
    code = -signal.SIGKILL if (case.kind, case.signal) == ("launcher", "SIGKILL") else 1
    # A run may finish without a stopped daemon.
    unnoticed = case.signal == "SIGSTOP" and exit_code == summary.get("exit_code") == 0
    return unnoticed or (
        named and exit_code == code and summary.get("exit_code") == 1 and seconds <= EXIT_LIMIT
    )


def wait_for_exit(
    case: SignalCase, launcher: subprocess.Popen[bytes], tree: list[psutil.Process], sent: float
) -> int | None:
    """Wait until all processes have exited or the time is over. Return the launcher's exit code."""
    # A run that does not need the stopped process runs to its end.
    limit = START_LIMIT if case.signal == "SIGSTOP" else EXIT_LIMIT + 10
    others = [process for process in tree if process.pid != launcher.pid]

    def all_exited() -> bool:
        return not any(map(is_running, others))

    if case.run_continues:
        wait_until(all_exited, sent + limit)
        launcher.send_signal(signal.SIGCONT)
    wait_until(lambda: launcher.poll() is not None and all_exited(), sent + limit)
    return launcher.poll()


def wait_until(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def is_running(process: psutil.Process) -> bool:
    """Return False for a process that has exited, also if its parent has not noticed it yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def table(results: list[SignalResult]) -> str:
    """Return the results as a Markdown table."""
    head = ["process", "signal", "phase", "seconds", "exit", "cause named", "last checkpoint", "left", ""]
    order = {case: number for number, case in enumerate(cases(list(KINDS), list(SIGNALS), list(PHASES)))}
    rows = [
        [
            *(result.kind, result.signal, result.phase, f"{result.seconds:.1f}", str(result.exit_code)),
            *(result.cause, result.checkpoint or "none", ", ".join(result.left) or "nothing"),
            "ok" if result.ok else "WRONG",
        ]
        for result in sorted(results, key=lambda r: order[SignalCase(r.kind, r.signal, r.phase)])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def load(path: Path) -> list[SignalResult]:
    if not path.exists():
        return []
    return [SignalResult(**json.loads(line)) for line in path.read_text().splitlines()]


def run_case_once(case: SignalCase, out: Path) -> SignalResult:
    """Return the result of a case that is in ``out``, or run it and append its result."""
    for result in load(out):
        if (result.kind, result.signal, result.phase) == (case.kind, case.signal, case.phase):
            return result
    with tempfile.TemporaryDirectory(prefix="deaths-") as folder:
        result = run_case(case, Path(folder))
    with out.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=RESULTS, help="the file of results")
    print(table(load(parser.parse_args().table)))
