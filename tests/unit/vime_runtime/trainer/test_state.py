"""A training state that is restored into another trainer: bitwise, at unchanged addresses."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import torch
from torch.distributed import FileStore
from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.run_config import RunConfig


def train_on(
    rank: int, world_size: int, store: str, config: RunConfig, batches: list[RolloutBatch]
) -> dict[str, Any]:
    """Train on the first two batches, write the state, train on the others."""
    from vime_runtime.trainer.trainer import Trainer

    with closing(Trainer(config, rank, world_size, FileStore(store, world_size))) as trainer:
        for batch in batches[:2]:
            trainer.train_step(batch)
        part = trainer.write_state(config.paths.run_dir)
        drawn = torch.rand(1).item()
        metrics = [trainer.train_step(batch) for batch in batches[2:]]
        return {"part": part, "metrics": metrics, "state": copy_of(trainer), "drawn": drawn}


def resume(
    rank: int,
    world_size: int,
    store: str,
    config: RunConfig,
    batches: list[RolloutBatch],
    random: list[dict[str, Any]],
) -> dict[str, Any]:
    """Restore the state into a trainer that has trained on another batch; train on the last batches."""
    from vime_runtime.trainer.trainer import Trainer

    with closing(Trainer(config, rank, world_size, FileStore(store, world_size))) as trainer:
        trainer.train_step(batches[-1])
        torch.rand(5)
        before = addresses(trainer)
        trainer.read_state(config.paths.run_dir, 2, random[rank])
        drawn = torch.rand(1).item()
        trainer.pause()
        trainer.resume()
        metrics = [trainer.train_step(batch) for batch in batches[2:]]
        moved = before != addresses(trainer)
        return {"metrics": metrics, "state": copy_of(trainer), "drawn": drawn, "moved": moved}


def copy_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer._optimizer.state()}


def addresses(trainer: Any) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in trainer._optimizer.state()}


@pytest.mark.parametrize(
    ("family", "parallel", "dtype", "files"),
    [
        ("qwen3", {"tensor_parallel": 2}, "float32", {"rank-0-of-2.pt", "rank-1-of-2.pt"}),
        ("qwen3", {"tensor_parallel": 2}, "bfloat16", {"rank-0-of-2.pt", "rank-1-of-2.pt"}),
        ("qwen3", {"distributed_optimizer": False}, "float32", {"rank-0-of-1.pt"}),
        ("qwen3", {}, "float32", {"rank-0-of-2.pt", "rank-1-of-2.pt"}),
        ("qwen3", {}, "bfloat16", {"rank-0-of-2.pt", "rank-1-of-2.pt"}),
        ("qwen3_moe", {}, "bfloat16", {"rank-0-of-2.pt", "rank-1-of-2.pt"}),
        ("qwen3_moe", {"expert_parallel": 2}, "bfloat16", {"rank-0-of-2.pt", "rank-1-of-2.pt"}),
    ],
    ids=["tp2", "tp2-bf16", "dp2-replicated", "dp2", "dp2-bf16", "dp2-experts-bf16", "dp2-experts-ep2-bf16"],
)
def test_training_resumes_bitwise_at_the_same_addresses(
    ranks, make_model, make_batch, run_file, family, parallel, dtype, files
):
    changes = {f"train__{key}": value for key, value in parallel.items()}
    config = run_file(make_model(family), model__dtype=dtype, **changes)
    batches = [make_batch(seed) for seed in range(5)]
    straight = ranks.run(train_on, 2, config, batches)
    random = [result["part"].random for result in straight]
    resumed = ranks.run(resume, 2, config, batches, random)

    assert {name for result in straight for name in result["part"].files} == files
    kinds = {name.split("/")[0] for name in straight[0]["state"]}
    masters = {"master"} if dtype == "bfloat16" else set()
    assert kinds == {"model", "step", "exp_avg", "exp_avg_sq"} | masters
    for before, after in zip(straight, resumed, strict=True):
        assert after["metrics"] == before["metrics"]
        assert after["drawn"] == before["drawn"]
        assert not after["moved"]
        assert after["state"].keys() == before["state"].keys()
        assert all(torch.equal(after["state"][name], tensor) for name, tensor in before["state"].items())


def test_a_state_of_another_model_is_refused(ranks, make_model, make_batch, run_file):
    config = run_file(make_model(), train__tensor_parallel=2)
    batches = [make_batch()] * 2
    random = [result["part"].random for result in ranks.run(train_on, 2, config, batches)]
    config = run_file(make_model(intermediate_size=128), train__tensor_parallel=2)
    with pytest.raises(AssertionError, match=r"mlp.linear_fc1.weight is torch.float32 .* expected"):
        ranks.run(resume, 2, config, batches, random)
