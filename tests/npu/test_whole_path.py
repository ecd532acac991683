"""The recipe qwen3-4b-tp2 at a tiny size on two simulated NPUs: the whole path, from launch to shutdown.

Two trainer ranks of one model and two engines of one worker. Real are launcher, Ray, runtime, Megatron-core,
and of the released vLLM and vllm-ascend, with the shipped patches: engine, scheduler, worker, sleep mode and
model classes. Standing in: the device, HCCL, MindSpeed's adaptor, the memory saver, the model runner.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness import script
from harness.npu.simulated_machine import SimulatedMachine
from harness.upstream import released

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs what vllm imports", allow_module_level=True)

pytestmark = [pytest.mark.needs("network"), pytest.mark.slow]

STEPS = 3
CHIP = 256 << 20
SETTINGS = {
    "cluster.devices_per_node": 2,
    "rollout.tensor_parallel": 1,
    "rollout.max_prompt_tokens": 16,
    "rollout.max_response_tokens": 6,
    "data.apply_chat_template": False,
    "data.reward": "operator:countOf",  # how many 1s the response has
    "train.tokens_per_micro_batch": 64,
    "algorithm.prompts_per_step": 4,
    "algorithm.samples_per_prompt": 4,
    "optimizer.lr": 0.01,
    "sync.bucket_bytes": 1 << 20,
    "checkpoint.every": 0,
    "evaluation.every": 0,
    "memory.host_bytes": 1 << 30,
    "modes.smoke.steps": STEPS,
}


@dataclass
class Whole:
    """A run that ended, and the machine that it ran on."""

    code: int
    output: str
    directory: Path
    machine: SimulatedMachine

    @property
    def metrics(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]

    @property
    def roles(self) -> dict[int, str]:
        """Return the role of each process of the run."""
        lines = (self.directory / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return {
            event["pid"]: f"{event['role']} {event['rank']}" for event in events if event["kind"] == "process"
        }

    def calls(self, *names: str) -> list[dict[str, Any]]:
        return [call | {"role": self.roles.get(call["pid"], "")} for call in self.machine.calls(*names)]


@pytest.fixture(scope="module")
def launch(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Whole]:
    """Run the recipe on its own simulated machine, with these folders first on the path."""
    checkpoint = make_checkpoint(0)

    def run(*before: Path) -> Whole:
        folder = tmp_path_factory.mktemp("whole")
        machine = SimulatedMachine(folder / "npus", chips=2, total=CHIP)
        data = folder / "data.jsonl"
        lines = [{"prompt": f"t{20 + i} t{30 + i}", "label": "1"} for i in range(16)]
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
        settings = SETTINGS | {"model.path": str(checkpoint), "data.path": str(data)}
        done = subprocess.run(
            [
                sys.executable,
                script("runs.launch_recipe"),
                folder / "run",
                "qwen3-4b-tp2",
                *(f"{key}={json.dumps(value)}" for key, value in settings.items()),
            ],
            env=machine.environment(*before, XDG_STATE_HOME=str(folder / "state")),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        logs = "".join(
            path.read_text(errors="replace")[-3000:] for path in (folder / "run" / "logs").glob("*.log")
        )
        return Whole(done.returncode, done.stdout + logs, folder / "run", machine)

    return run


@pytest.fixture(scope="module")
def whole(launch: Callable[..., Whole], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run with the released Python sources of the stack's vLLM packages, and our patches."""
    run = launch(released.patched_sources("ascend-0.22", tmp_path_factory.mktemp("patched")))
    assert run.code == 0, run.output
    return run


def test_rollout_and_trainer_logprobs_agree_at_every_step(whole: Whole) -> None:
    assert [row["step"] for row in whole.metrics] == list(range(1, STEPS + 1))
    for row in whole.metrics:
        assert row["train/grad_norm"] > 0
        assert row["logprob/abs_diff_mean"] < 0.03  # bf16


def test_trainer_and_engine_are_never_resident_together(whole: Whole) -> None:
    """Each chip has one owner at a time: what order the phases have is read off the device itself."""
    for chip in (0, 1):
        events = [call for call in whole.calls() if call.get("chip") == chip]
        kinds = [call["name"] for call in events if call["name"] in ("tms_pause", "tms_resume", "generate")]
        trainer_resident = False
        for kind in kinds:
            if kind == "generate":
                assert not trainer_resident
            trainer_resident = {"tms_resume": True, "tms_pause": False}.get(kind, trainer_resident)
        assert kinds.count("tms_resume") == STEPS + 1  # and to save the weights
    for row in whole.metrics:
        assert row["memory/train_paused_bytes"] == 0 < row["memory/train_active_bytes"]
        assert row["memory/rollout_paused_bytes"] == 0 < row["memory/rollout_active_bytes"]


def test_buckets_are_opened_on_the_chip_that_filled_them(whole: Whole) -> None:
    opened = whole.calls("ipc_open")
    assert {call["chip"] for call in opened} == {0, 1}
    for call in opened:
        assert call["role"] == f"engine {call['chip']}"
        assert whole.roles[call["owner"]] == f"trainer rank {call['chip']}"


def test_processes_exit_and_free_device_memory(whole: Whole) -> None:
    assert whole.machine.used(0) == whole.machine.used(1) == 0
    times = [call["at"] for call in whole.calls()]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert (whole.directory / "checkpoints" / "final" / "config.json").exists()


def test_log_begins_with_the_untested_steps(whole: Whole) -> None:
    assert (whole.directory / "logs" / "driver.log").read_text().startswith("Not tested on an NPU yet:")


@pytest.mark.exhaustive
def test_wrong_allocator_configuration_fails_the_run_before_it_starts(
    launch: Callable[..., Whole], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if b'default_worker' in open('/proc/self/cmdline', 'rb').read():  # a process of Ray's\n"
        "    os.environ['PYTORCH_NPU_ALLOC_CONF'] = 'expandable_segments:True'\n"
    )
    run = launch(tmp_path)
    summary = json.loads((run.directory / "summary.json").read_text())
    assert run.code == summary["exit_code"] == 1
    assert re.search(
        r"trainer rank \d has PYTORCH_NPU_ALLOC_CONF 'expandable_segments:True'", summary["reason"]
    )
    assert run.calls("tms_region", "hccl_init") == []
