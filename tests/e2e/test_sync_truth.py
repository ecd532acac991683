"""The log-prob difference in fp32 is rounding only, and grows when the engine keeps old weights.

One run shows both: its first steps sync the weights, the others do not.
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
from harness.runs.recipe_run import RecipeRun
from harness.tolerances import LOGPROB_FP32
from vimectl.runs.descendants import SharedMemoryWatch

SCRIPT = script("runs.stale_weights")
LAST_SYNC = 3  # as in stale_weights.py
STEPS = 7

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(default_run: RecipeRun, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The metrics of a run in fp32 whose engine has stale weights from step 5 on."""
    rows = run_with_stale_weights(default_run, tmp_path_factory.mktemp("stale"))
    assert len(rows) == STEPS
    return rows


def test_logprobs_in_fp32_differ_by_rounding_only(rows: list[dict[str, float]]) -> None:
    assert max(differences(rows, stale=False)) <= LOGPROB_FP32


def test_stale_weights_increase_the_difference_tenfold(rows: list[dict[str, float]]) -> None:
    assert differences(rows, stale=True)[-1] >= 10 * max(differences(rows, stale=False))


def differences(rows: list[dict[str, float]], stale: bool) -> list[float]:
    """Return the log-prob differences of the steps that sampled with stale weights, or of the others."""
    # Step 4 samples with the weights of the sync in step 3, so step 5 is the first with stale weights.
    return [row["logprob/abs_diff_mean"] for row in rows if (row["step"] > LAST_SYNC + 1) is stale]


def run_with_stale_weights(like: RecipeRun, tmp_path: Path) -> list[dict[str, float]]:
    """Repeat the run ``like`` in fp32 and in another directory, without weight sync after step 3."""
    scratch = Path("/tmp") / f"vime-stale-{os.getpid()}"  # short, because Ray puts sockets there
    scratch.mkdir(0o700)
    text = (like.directory / "resolved.json").read_text()
    run_file = json.loads(text.replace(json.loads(text)["scratch_dir"], str(scratch)))
    run_file |= {"run_dir": str(tmp_path), "steps": STEPS}
    shutil.copytree(like.directory / "problems", tmp_path / "problems")
    run_file["recipe"]["model"]["dtype"] = "float32"
    path = tmp_path / "resolved.json"
    path.write_text(json.dumps(run_file))
    watch = SharedMemoryWatch()  # without a supervisor, this removes the files of killed workers
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
