"""Two trainer ranks on the simulated NPU (HCCL, MindSpeed's adaptor, the memory saver) and on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from vime_runtime.spec.run_config import RunConfig

from harness.npu.simulated_machine import SimulatedMachine
from harness.run_config import make_run_config
from harness.runtime.rank_processes import on_each
from harness.tolerances import of_sum

EPS = torch.finfo(torch.bfloat16).eps
RECIPE = {
    "train": {"tensor_parallel": 2, "recompute": True},
    "rollout": {"temperature": 0.7},
    "optimizer": {"eps": 1e-2, "clip_grad": 0.5},
    "sync": {"bucket_bytes": 100_000},
}


def train(rank: int, world_size: int, master: str, config: RunConfig, device: str) -> dict[str, Any]:
    """Take two steps, offloaded between them as in an actor; return metrics, weights and memory usage."""
    import random

    from vime_runtime import device as devices
    from vime_runtime.batch import RolloutBatch

    draw = random.Random(0)
    batch = RolloutBatch()
    for group in range(8):
        prompt, response = ([draw.randrange(64) for _ in range(5)] for _ in range(2))
        batch.append(prompt, response, [-4.0] * 5, draw.random(), group // 4)
    devices.get(device).before_megatron()
    from vime_runtime.trainer.trainer import Trainer

    trainer = Trainer(config, rank, world_size, master)
    try:
        start = masters(trainer)
        metrics = [trainer.train_step(batch)]
        active = trainer.memory_usage()
        trainer.pause()
        offloaded = trainer.memory_usage()
        trainer.resume()
        metrics.append(trainer.train_step(batch))
        weights = {name: weight.cpu() for name, weight in trainer.weights()}
        moves = masters(trainer) - start
        where = {parameter.device.type for parameter in trainer._model.parameters()}
        return {
            "metrics": metrics,
            "weights": weights,
            "moves": moves,
            "where": where,
            "memory_usage": [active, offloaded],
        }
    finally:
        trainer.close()


def masters(trainer: Any) -> torch.Tensor:
    """Return the fp32 copies of all weights of this rank, flat, on the host."""
    state = trainer._optimizer.state()
    return torch.cat([tensor.cpu().flatten() for name, tensor in state if name.startswith("master/")])


@pytest.fixture(scope="module")
def trained(
    machine: SimulatedMachine,
    make_model: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[dict[str, Any]]]:
    """Train on each device; return the results of both ranks."""
    folder = tmp_path_factory.mktemp("trainer")
    model = {"path": str(make_model()), "dtype": "bfloat16"}
    found = {}
    for device in ("npu", "cpu"):
        cluster = {"device": device, "devices_per_node": 2}
        recipe = RECIPE | {"model": model, "memory": {"offload_dir": str(folder)}, "cluster": cluster}
        config = make_run_config({"recipe": recipe, "steps": 2, "run_dir": str(folder)})
        ranks = [machine.start(folder, chip) for chip in "01"]
        try:
            found[device] = on_each(ranks, train, config, device)
        finally:
            for rank in ranks:
                rank.close()
    return found


def test_two_ranks_train_on_the_npu_as_on_the_host(trained: dict[str, list[dict[str, Any]]]) -> None:
    for npu, cpu in zip(trained["npu"], trained["cpu"], strict=True):
        assert npu["where"] == {"npu"}
        for ours, theirs in zip(npu["metrics"], cpu["metrics"], strict=True):
            # Every layer rounds to bf16. The loss is a sum of advantages, which is 0 but for rounding in
            # fp32.
            tolerance = {"rel": 2 * EPS, "abs": of_sum(torch.float32, 8 * 5)["atol"]}
            assert ours == pytest.approx(theirs, **tolerance)
        # Compare what was learned: the weights would agree without any training. Gradients in bf16 differ by
        # a few percent; without one of the larger matrices the difference is 10 to 50 %.
        assert (npu["moves"] - cpu["moves"]).norm() < 8 * EPS * cpu["moves"].norm()


def test_model_and_optimizer_are_in_the_region_of_the_memory_saver(
    trained: dict[str, list[dict[str, Any]]], machine: SimulatedMachine
) -> None:
    for rank in trained["npu"]:
        active, offloaded = rank["memory_usage"]
        parameters = sum(weight.numel() for weight in rank["weights"].values())
        # Half of the parameters, 18 bytes each: two of bf16, four each of gradient, master, two moments.
        assert active.resident > 0.5 * 18 * parameters
        assert offloaded.resident == 0
    regions = machine.calls("tms_region")
    assert {(call["tag"], call["backup"]) for call in regions} == {("vime-training", True)}
    order = [call["name"] for call in machine.calls("tms_pause", "tms_resume") if call["chip"] == 0]
    assert order == ["tms_pause", "tms_resume"]


def test_weights_are_read_after_all_streams_have_finished(
    trained: dict[str, list[dict[str, Any]]], machine: SimulatedMachine
) -> None:
    assert trained
    order = [call["name"] for call in machine.calls("tms_resume", "synchronize") if call["chip"] == 0]
    # The first one belongs to the measurement of memory after resuming.
    assert order[-3:] == ["tms_resume", "synchronize", "synchronize"]


def test_the_cache_is_never_emptied_on_an_npu(
    trained: dict[str, list[dict[str, Any]]], machine: SimulatedMachine
) -> None:
    assert trained
    assert machine.calls("empty_cache") == []


def test_the_ranks_are_joined_by_hccl_after_mindspeeds_adaptor_came_before_megatron(
    trained: dict[str, list[dict[str, Any]]], machine: SimulatedMachine
) -> None:
    assert trained
    adaptors = machine.calls("mindspeed_adaptor")
    assert [call["megatron_loaded"] for call in adaptors] == [False, False]
    first = machine.calls("hccl_init")[0]
    assert first["size"] == 2
    assert max(call["at"] for call in adaptors if call["pid"] == first["pid"]) < first["at"]
