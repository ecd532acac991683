"""The log-prob difference in fp32: rounding alone, until the engine keeps old weights; then it grows.

One run shows both: its first steps are as they should be, the others are not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import script
from harness.runs.recipe_run import Run
from harness.tolerances import LOGPROB_FP32
from vimectl.runs.descendants import SharedMemoryWatch

SCRIPT = script("runs.stale_weights")
LAST_SYNC = 3  # as in stale_weights.py
STEPS = 7

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(default_run: Run, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The metrics of a run in fp32 whose weights are stale after a while."""
    rows = run_with_stale_weights(default_run, tmp_path_factory.mktemp("stale"))
    assert len(rows) == STEPS
    return rows


def test_everything_in_fp32_agrees_to_rounding(rows: list[dict[str, float]]) -> None:
    assert max(differences(rows, stale=False)) <= LOGPROB_FP32


def test_the_difference_grows_tenfold_once_the_weights_are_stale(rows: list[dict[str, float]]) -> None:
    assert differences(rows, stale=True)[-1] >= 10 * max(differences(rows, stale=False))


def differences(rows: list[dict[str, float]], stale: bool) -> list[float]:
    """The log-prob difference of the steps that sampled with stale weights, or of the others."""
    # The weights of step 3's sync are those that step 4 samples with: step 5 is the first stale one.
    return [row["logprob/abs_diff_mean"] for row in rows if (row["step"] > LAST_SYNC + 1) is stale]


def run_with_stale_weights(like: Run, tmp_path: Path) -> list[dict[str, float]]:
    """Run what ``like`` ran, in fp32 and in another directory, with the sync off after step 3."""
    run_file = json.loads((like.directory / "resolved.json").read_text())
    scratch = Path("/tmp") / f"vime-stale-{os.getpid()}"  # short: Ray puts sockets there
    scratch.mkdir()
    run_file |= {"run_dir": str(tmp_path), "steps": STEPS, "scratch_dir": str(scratch)}
    run_file["recipe"]["model"]["dtype"] = "float32"
    for variables in run_file["environment"].values():
        variables["TMPDIR"] = str(scratch)
    path = tmp_path / "resolved.json"
    path.write_text(json.dumps(run_file))
    watch = SharedMemoryWatch()  # no supervisor is there to remove what killed workers leave
    output = tmp_path / "output"
    with output.open("wb") as file:
        environment = os.environ | run_file["environment"]["driver"]
        child = subprocess.Popen([sys.executable, SCRIPT, path], env=environment, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 600
        while child.poll() is None and time.monotonic() < deadline:
            watch.update(all_files=True)
            time.sleep(0.5)
        assert child.returncode == 0, output.read_text()
    finally:
        child.kill()
        shutil.rmtree(scratch)
        watch.remove_unused()
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
