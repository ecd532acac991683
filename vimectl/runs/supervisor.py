"""``python -m vimectl.runs.supervisor RUN_DIR``: see a run through, whatever happens to anybody.

It starts the runtime, watches, starts it again when the recipe says so, ends everything, removes the run's
private folder and its files in /dev/shm, writes ``summary.json`` and prints the same on stdout. Its stdin is
a pipe that the launcher holds: at its end the launcher is gone. Exit codes are those of `vimectl run`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import INTERRUPTED
from vime_runtime.spec.recipe import Recipe

from vimectl.runs import logs, out_of_memory, report
from vimectl.runs import summary as summaries
from vimectl.runs.exit_status import Verdict, judge
from vimectl.runs.failures import Accidents
from vimectl.runs.plan import runtime_command
from vimectl.runs.process_identity import Identity
from vimectl.runs.run_log import Journal, append_event
from vimectl.runs.supervised_command import Outcome, stop_requests, supervise


def main(argv: list[str]) -> int:
    """See the run in a directory through and return the exit code."""
    with stop_requests() as requests:
        run = SupervisedRun(Path(argv[1]), requests)
        summary = run.see_through()
        hint = "" if summaries.write(run.run_dir, summary) else "; summary.json could not be written"
        report.write_at_end(run.run_dir)
        with contextlib.suppress(BrokenPipeError):  # nobody is there to read it
            print(json.dumps({**summary, "hint": summary["hint"] + hint}), flush=True)
    return int(summary["exit_code"])


class SupervisedRun:
    """One run, from its files to its summary; ``requests`` are the signals that asked to stop it."""

    def __init__(self, run_dir: Path, requests: list[int]) -> None:
        self.run_dir = run_dir
        self._requests = requests
        self._document: dict[str, Any] = _read(run_dir / "resolved.json")
        self._launcher: dict[str, Any] = _read(run_dir / "launcher.json")
        self._recipe = Recipe.model_validate_json(json.dumps(self._document["recipe"]))
        self._scratch = Path(self._document["scratch_dir"])
        self._log = run_dir / "logs" / "driver.log"
        self._journal = Journal(run_dir)
        self._peak_bytes = int(self._launcher["prepare_peak_bytes"])
        summaries.reserve(run_dir)
        (run_dir / "supervisor.json").write_text(json.dumps(asdict(Identity.of(os.getpid()))) + "\n")

    def see_through(self) -> dict[str, Any]:
        """Run the runtime until it finishes or may not be started again. Returns the summary."""
        began = time.monotonic()
        if self._journal.read():
            self._announce(0, "resumed")
        restarts = 0
        while True:
            verdict, outcome = self._start()
            if not verdict.again or outcome.unkillable or restarts == self._recipe.cluster.restarts:
                break
            restarts += 1
            self._announce(restarts, verdict.reason)
        hint = verdict.hint
        if not hint and verdict.exit_code not in (0, INTERRUPTED):
            hint = logs.ending(self.run_dir, verdict.reason)
        return summaries.summarise(
            self._document,
            self._journal,
            verdict,
            seconds=time.monotonic() - began,
            peak_bytes=self._peak_bytes,
            unkillable=outcome.unkillable,
            hint=hint,
        )

    def _start(self) -> tuple[Verdict, Outcome]:
        """Start the runtime once and wait for its end."""
        launcher = {"role": "launcher", "rank": 0, "pid": self._launcher["pid"]}
        stack_log = self.run_dir / "logs" / "stacks.log"
        accidents = Accidents(self._journal, self._recipe.cluster.hang_seconds, stack_log, launcher)
        kills = out_of_memory.kernel_kills()
        with _folder(self._scratch):
            outcome = supervise(
                runtime_command(self.run_dir),
                os.environ | self._document["environment"]["driver"],
                stdout=self._log,
                stderr=self._log,
                look=accidents.look,
                requests=self._requests,
                grace_seconds=self._recipe.cluster.stop_seconds,
                pause=accidents.pause,
            )
            accidents.close()
            self._journal.read()
            self._peak_bytes = max(self._peak_bytes, outcome.peak_bytes)
            written = [self.run_dir, self._scratch, Path("/dev/shm")]
            kills = out_of_memory.kernel_kills() - kills
            verdict = judge(outcome, self._journal, accidents, kills, written)
            if verdict.exit_code not in (0, INTERRUPTED):
                logs.keep_ray(self._scratch, self.run_dir)
            return verdict, outcome

    def _announce(self, attempt: int, reason: str) -> None:
        """Say in the journal that the runtime is started again, for whoever follows it."""
        try:
            append_event(
                self.run_dir, "restart", attempt=attempt, step=len(self._journal.rows), reason=reason
            )
        except OSError as e:
            print(f"{e}; not written: restart {attempt}: {reason}", file=sys.stderr)
        self._journal.read()


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    path.mkdir(mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
