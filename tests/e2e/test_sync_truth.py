"""The log-prob difference is a measure that can fail: it grows when the engine keeps old weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Run

SCRIPT = Path(__file__).with_name("sync_off.py")
LAST_SYNC = 2  # as in sync_off.py
STEPS = 6

pytestmark = pytest.mark.slow


def test_the_difference_grows_tenfold_once_the_weights_are_stale(default_run: Run, tmp_path: Path) -> None:
    rows = run_with_stale_weights(default_run, tmp_path)
    # The weights of step 2's sync are those that step 3 samples with: step 4 is the first stale one.
    fresh = [row["logprob/abs_diff_mean"] for row in rows if row["step"] <= LAST_SYNC + 1]
    assert len(rows) == STEPS
    assert rows[-1]["logprob/abs_diff_mean"] >= 10 * max(fresh)


def run_with_stale_weights(like: Run, tmp_path: Path) -> list[dict[str, float]]:
    """Run what ``like`` ran, in fp32 and in another directory, with the sync off after step 2."""
    run_file = json.loads((like.directory / "resolved.json").read_text())
    scratch = Path("/tmp") / f"vime-stale-{os.getpid()}"  # short: Ray puts sockets there
    scratch.mkdir()
    run_file |= {"run_dir": str(tmp_path), "steps": STEPS, "scratch_dir": str(scratch)}
    run_file["recipe"]["model"]["dtype"] = "float32"
    for variables in run_file["environment"].values():
        variables["TMPDIR"] = str(scratch)
    path = tmp_path / "resolved.json"
    path.write_text(json.dumps(run_file))
    try:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(path)],
            env=os.environ | run_file["environment"]["driver"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
    finally:
        shutil.rmtree(scratch)
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
