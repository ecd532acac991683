"""The recipe qwen3-4b-tp2 at a tiny size on the released torch_npu: from launch to shutdown.

Real are launcher, Ray, runtime, Megatron-core, torch_npu, and of vLLM and vllm-ascend the released Python
sources with the shipped patches. Trainer and engine have TP=2. Standing in: the C libraries of CANN, the
operators (computed on the CPU), the memory saver, MindSpeed, and the parts of vllm-ascend that
``vllm_ascend_parts`` lists.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.device_memory import device_memory
from vime_runtime.spec.model_families import family_of
from vime_runtime.spec.run_config import RunConfig

from harness.npu.machine import Machine
from harness.npu.whole_run import CHIP_BYTES, MODEL, STEPS, WholeRun, launch
from harness.upstream import released
from npu.proof.account import account, changes

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs what vllm imports", allow_module_level=True)

pytestmark = [pytest.mark.needs("network"), pytest.mark.slow]

CHIPS = (0, 1)
MIB = 1 << 20
SEGMENT = 20 * MIB
# Holders of memory that is mapped and unmapped.
TRAINER, ENGINE = "trainer: region", "engine: weights, KV cache"


@pytest.fixture(scope="module")
def whole(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    folder = tmp_path_factory.mktemp("whole")
    machine = Machine(folder / "machine", chips=len(CHIPS), chip_bytes=CHIP_BYTES)
    sources = released.patched_sources("ascend-0.22", folder / "sources")
    run = launch(folder / "first", make_checkpoint(0, **MODEL), machine, len(CHIPS), sources)
    assert run.code == 0, run.output
    return run


def test_rollout_and_trainer_logprobs_agree_at_every_step(whole: WholeRun) -> None:
    assert [row["step"] for row in whole.metrics] == list(range(1, STEPS + 1))
    for row in whole.metrics:
        assert row["train/grad_norm"] > 0
        assert row["logprob/abs_diff_mean"] < 0.03  # bf16


def test_trainer_and_kv_cache_are_never_resident_together(whole: WholeRun) -> None:
    """The memory saver maps physical memory for the trainer, the sleep mode for the engine.

    Both hold some during a sync, when the engine has its weights but not its KV cache, which is most of it.
    """
    for chip in CHIPS:
        held = {TRAINER: 0, ENGINE: 0}
        moments = []
        for _, where, holder, nbytes in changes(whole):
            if where == chip and holder in held:
                held[holder] = nbytes
                moments.append(dict(held))
        whole_engine = max(moment[ENGINE] for moment in moments)
        assert max(moment[ENGINE] for moment in moments if moment[TRAINER]) < whole_engine / 2
        assert any(all(moment.values()) for moment in moments)
    for row in whole.metrics:
        assert row["memory/train_paused_bytes"] == 0 < row["memory/train_active_bytes"]
        assert row["memory/rollout_paused_bytes"] == 0 < row["memory/rollout_active_bytes"]


def test_estimate_counts_what_the_chips_hold(whole: WholeRun) -> None:
    """The doctor's estimate leaves out how allocators round: two segments of each at most, of 20 MiB."""
    recipe = RunConfig.load(whole.directory / "resolved.json").recipe
    config = json.loads((Path(recipe.model.path) / "config.json").read_text())
    computed = device_memory(recipe, family_of(config, "").shape(config, ""))
    for row in account(whole):
        if row.step == STEPS and row.phase in computed:
            for prefix in ("trainer", "engine"):
                expected = sum(n for holder, n in computed[row.phase].items() if holder.startswith(prefix))
                measured = sum(n for holder, n in row.held.items() if holder.startswith(prefix))
                assert expected - MIB <= measured <= expected + 2 * 2 * SEGMENT, (row.phase, prefix)


def test_buckets_are_opened_on_the_chip_that_filled_them(whole: WholeRun) -> None:
    opened = whole.machine.events("aclrtIpcMemImportByKey")
    assert {event["chip"] for event in opened} == set(CHIPS)
    for event in opened:
        assert whole.roles[event["pid"]] == f"engine worker {event['chip']}"
        assert whole.roles[event["owner"]] == f"trainer rank {event['chip']}"


def test_processes_exit_and_free_device_memory(whole: WholeRun) -> None:
    assert [whole.machine.used(chip) for chip in CHIPS] == [0, 0]
    assert (whole.directory / "checkpoints" / "final" / "config.json").exists()


def test_log_begins_with_the_untested_steps(whole: WholeRun) -> None:
    assert (whole.directory / "logs" / "driver.log").read_text().startswith("Not tested on an NPU yet:")


@pytest.mark.exhaustive
def test_wrong_allocator_configuration_fails_the_run_before_it_starts(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "sitecustomize.py").write_text(
        "import os\n"
        "if b'default_worker' in open('/proc/self/cmdline', 'rb').read():  # a process of Ray's\n"
        "    os.environ['PYTORCH_NPU_ALLOC_CONF'] = 'expandable_segments:True'\n"
    )
    machine = Machine(tmp_path / "machine", chips=len(CHIPS), chip_bytes=CHIP_BYTES)
    run = launch(tmp_path / "whole", make_checkpoint(0, **MODEL), machine, len(CHIPS), before)
    summary = json.loads((run.directory / "summary.json").read_text())
    assert run.code == summary["exit_code"] == 1
    assert re.search(
        r"trainer rank \d has PYTORCH_NPU_ALLOC_CONF 'expandable_segments:True'", summary["reason"]
    )
    assert machine.events("aclrtMallocPhysical", "HcclCommInitRootInfoConfig") == []
