"""Let one process of a real run die or stop in one phase, and look how the run ends: one row of a table.

    python -m harness.runs.process_deaths [--kind K]... [--signal S]... [--phase P]... [--jobs 2] [--out FILE]
    python -m harness.runs.process_deaths --table FILE

Each case is a run of the default recipe. Results are appended to a file of JSON lines, cases that are in it
already are left out, and the table of all of them is printed at the end. The phase is hit from outside: the
journal is looked at every few milliseconds, and when the phase begins the driver is held by SIGSTOP until the
signal is sent, so that even a phase of some milliseconds is not over by then.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from harness import REPOSITORY
from harness.runs import shared_memory

RESULTS = REPOSITORY / "deaths.jsonl"

VIMECTL = [sys.executable, "-m", "vimectl"]
KINDS = {
    "launcher": "launcher",
    "supervisor": "supervisor",
    "driver": "runtime driver",
    "trainer": "trainer rank",
    "engine": "engine",
    "engine-worker": "engine worker",
    "raylet": "raylet",
    "gcs": "GCS",
}
SIGNALS = ("SIGTERM", "SIGKILL", "SIGSTOP")
# What the journal says when the phase begins. The start-up is hit while the engine is built: by then
# every process is there.
PHASES = {
    "start-up": ("start-up", "building the engine"),
    "rollout": ("rollout", ""),
    "sync": ("sync", ""),
    "train": ("train", ""),
    "checkpoint": ("checkpoint", ""),
}
# The step in which it happens: the first is unlike the others, and a checkpoint has been written before.
STEP = 3

ONE_DEVICE = ["cluster.devices_per_node=1", "train.tensor_parallel=1", "rollout.tensor_parallel=1"]
# Only a stopped process needs a short limit. Nothing is journaled while the engine is built: on a busy
# machine VIMECTL_DEATHS_HANG has to be more.
HANG_SECONDS = float(os.environ.get("VIMECTL_DEATHS_HANG", "30"))
NO_HANG = 600.0
GONE_LIMIT = 15.0
START_LIMIT = 900.0  # the first run of a version prepares its model


@dataclass(frozen=True)
class Case:
    """Who gets which signal when."""

    kind: str
    signal: str
    phase: str

    @property
    def hang_timeout(self) -> float:
        """The limit of the run in this case."""
        return HANG_SECONDS if self.signal == "SIGSTOP" and not self.runs_on else NO_HANG

    @property
    def runs_on(self) -> bool:
        """A run whose launcher is stopped goes on: nobody but the person at the terminal misses it."""
        return self.kind == "launcher" and self.signal == "SIGSTOP"


@dataclass(frozen=True)
class Result(Case):
    """What came of it. ``seconds`` until nothing of the run was there, from the signal or from its limit."""

    seconds: float
    exit_code: int | None
    summary_code: int | None
    cause: str
    checkpoint: str | None
    left: list[str]
    ok: bool


def cases(kinds: list[str], signals: list[str], phases: list[str]) -> Iterator[Case]:
    """All combinations. An engine's workers are there once the engine is built."""
    for kind, signum, phase in itertools.product(kinds, signals, phases):
        if (kind, phase) != ("engine-worker", "start-up"):
            yield Case(kind, signum, phase)


def play(case: Case, folder: Path) -> Result:
    """Run one case in a folder of its own."""
    run_dir = folder / "run"
    sets = [] if case.kind == "engine-worker" else ONE_DEVICE
    sets = [*sets, f"cluster.hang_timeout={case.hang_timeout}"]
    if case.phase == "checkpoint":
        sets.append("checkpoint.every=1")
    mode = "smoke" if case.runs_on else "test"
    command = [
        *VIMECTL,
        "run",
        "recipe",
        "qwen3-tiny-tp2",
        "--mode",
        mode,
        "--run-dir",
        str(run_dir),
        "--yes",
    ]
    with (folder / "output").open("wb") as output:
        launcher = subprocess.Popen(
            [*command, *(word for assignment in sets for word in ("--set", assignment))],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    tree: list[psutil.Process] = []
    try:
        driver = hold(launcher, run_dir, case)
        tree = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
        shm = shared_memory.used_by(process.pid for process in tree)
        victim = find(case.kind, launcher, run_dir)
        os.kill(victim, getattr(signal, case.signal))
        sent = time.monotonic()
        if case.kind != "driver" or case.signal != "SIGSTOP":
            send(driver, signal.SIGCONT)
        exit_code = await_end(case, launcher, tree, sent)
    finally:
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        launcher.kill()
        launcher.wait()
    waited = case.hang_timeout if case.hang_timeout != NO_HANG else 0
    seconds = time.monotonic() - sent
    left = [f"pid {p.pid}" for p in tree if lives(p)]
    left += [str(path) for path in Path("/dev/shm").iterdir() if path.stat().st_ino in shm]
    scratch = json.loads((run_dir / "resolved.json").read_text())["scratch_dir"]
    left += [scratch] if Path(scratch).exists() else []
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    summary = read_summary(run_dir)
    return Result(
        **asdict(case),
        seconds=round(seconds, 1),
        exit_code=exit_code,
        summary_code=summary.get("exit_code"),
        cause=summary.get("reason", "no summary.json"),
        checkpoint=summary.get("last_checkpoint"),
        left=left,
        ok=not left and is_right(case, exit_code, summary, victim, seconds - waited),
    )


def is_right(case: Case, exit_code: int | None, summary: dict[str, Any], victim: int, seconds: float) -> bool:
    """Whether the run ended as it must: in time, with the right code, naming the one that was hit."""
    if case.runs_on:
        return exit_code == summary.get("exit_code") == 0
    if case.signal == "SIGTERM" and case.kind in ("launcher", "supervisor"):
        return exit_code == summary.get("exit_code") == 130 and seconds <= GONE_LIMIT
    named = str(victim) in str(summary.get("reason"))
    code = -signal.SIGKILL if (case.kind, case.signal) == ("launcher", "SIGKILL") else 1
    # A daemon that is stopped need not be missed: the run may end as if nothing had been.
    unnoticed = case.signal == "SIGSTOP" and exit_code == summary.get("exit_code") == 0
    return unnoticed or (
        named and exit_code == code and summary.get("exit_code") == 1 and seconds <= GONE_LIMIT
    )


def hold(launcher: subprocess.Popen[bytes], run_dir: Path, case: Case) -> int:
    """Wait for the phase and stop the driver in it. Returns the driver's id."""
    deadline = time.monotonic() + START_LIMIT
    events = run_dir / "events.jsonl"
    phase, detail = PHASES[case.phase]
    position = 0
    driver = 0
    while time.monotonic() < deadline:
        if launcher.poll() is not None:
            words = (run_dir.parent / "output").read_text()[-2000:]
            raise RuntimeError(f"ended before: {read_summary(run_dir).get('reason')}\n{words}")
        if events.exists():
            with events.open("rb") as file:
                file.seek(position)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            position += len(whole)
            for event in map(json.loads, whole.splitlines()):
                if event["kind"] == "process" and event["role"] == KINDS["driver"]:
                    driver = event["pid"]
                begins = event["kind"] == "phase" and event["phase"] == phase and detail in event["detail"]
                if begins and (phase == "start-up" or event["step"] >= (1 if case.runs_on else STEP)):
                    send(driver, signal.SIGSTOP)
                    return driver
        time.sleep(0.003)
    raise RuntimeError(f"{case.phase} did not begin within {START_LIMIT:.0f} s")


def find(kind: str, launcher: subprocess.Popen[bytes], run_dir: Path) -> int:
    """The process of this kind; of several the last one."""
    if kind == "launcher":
        return launcher.pid
    if kind == "supervisor":
        return json.loads((run_dir / "supervisor.json").read_text())["pid"]
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    return [event["pid"] for event in events if event.get("role") == KINDS[kind]][-1]


def await_end(
    case: Case, launcher: subprocess.Popen[bytes], tree: list[psutil.Process], sent: float
) -> int | None:
    """Wait until nothing of the run is there or its time is over. Returns the launcher's exit code."""
    # A run that does not miss who is stopped goes on to its end.
    limit = START_LIMIT if case.signal == "SIGSTOP" else GONE_LIMIT + 10
    others = [process for process in tree if process.pid != launcher.pid]

    def all_gone() -> bool:
        return not any(map(lives, others))

    if case.runs_on:
        until(all_gone, sent + limit)
        launcher.send_signal(signal.SIGCONT)
    until(lambda: launcher.poll() is not None and all_gone(), sent + limit)
    return launcher.poll()


def until(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def read_summary(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {}


def table(results: list[Result]) -> str:
    """The results as a table in Markdown."""
    head = ["process", "signal", "phase", "seconds", "exit", "cause named", "last checkpoint", "left", ""]
    order = {case: number for number, case in enumerate(cases(list(KINDS), list(SIGNALS), list(PHASES)))}
    rows = [
        [
            *(result.kind, result.signal, result.phase, f"{result.seconds:.1f}"),
            *(
                str(result.exit_code),
                result.cause,
                result.checkpoint or "none",
                ", ".join(result.left) or "nothing",
            ),
            "ok" if result.ok else "WRONG",
        ]
        for result in sorted(results, key=lambda r: order[Case(r.kind, r.signal, r.phase)])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def load(path: Path) -> list[Result]:
    if not path.exists():
        return []
    return [Result(**json.loads(line)) for line in path.read_text().splitlines()]


def play_once(case: Case, out: Path) -> Result:
    """Return the result of a case that is in ``out`` already, or play it and append its result."""
    for result in load(out):
        if (result.kind, result.signal, result.phase) == (case.kind, case.signal, case.phase):
            return result
    with tempfile.TemporaryDirectory(prefix="deaths-") as folder:
        result = play(case, Path(folder))
    with out.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--signal", action="append", choices=SIGNALS)
    parser.add_argument("--phase", action="append", choices=PHASES)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, help="print the table of these results and do nothing else")
    options = parser.parse_args()
    if options.table:
        print(table(load(options.table)))
        return 0
    wanted = cases(
        options.kind or list(KINDS), options.signal or list(SIGNALS), options.phase or list(PHASES)
    )

    def run(case: Case) -> None:
        try:
            result = play_once(case, options.out)
        except Exception as e:  # a case that cannot be played does not end the others
            print(f"{case.kind} {case.signal} {case.phase}: {e}", file=sys.stderr, flush=True)
            return
        print(f"{'ok   ' if result.ok else 'WRONG'} {result}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, wanted))
    results = load(options.out)
    print(table(results))
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
