from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed import FileStore
from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.device_memory import GRADIENT, REGION, SHARDED

from harness.tolerances import of_rounding, relative


class CountsInGroups(torch.optim.Optimizer):
    """Like MindSpeed's fused AdamW for NPUs: the step count is in the group, not in the state."""

    def __init__(self, params, lr, weight_decay, betas, eps, adam_w_mode):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["step"] += 1
            for param in group["params"]:
                assert set(self.state[param]) == {"exp_avg", "exp_avg_sq"}
                param.sub_(param.grad / group["step"])


def counted(rank: int, world_size: int, store: str, path: str) -> list[dict[str, torch.Tensor]]:
    """Return the state after two steps, after the third, and after the third in a resumed optimizer."""
    from megatron.core import optimizer as megatrons
    from vime_runtime.memory.cpu_region import CpuRegion
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.trainer.optimizer import Optimizer

    settings = SimpleNamespace(lr=0.1, min_lr=0, weight_decay=0, beta1=0.9, beta2=0.9, eps=1e-8, clip_grad=0)
    groups = parallel.start("gloo", rank, world_size, FileStore(store, world_size), 1)
    megatrons.Adam, adam = CountsInGroups, megatrons.Adam
    megatrons.USING_PYTORCH_OPTIMIZER = False
    try:
        source = HFCheckpoint(Path(path))

        def build():
            torch.manual_seed(0)
            built = model.build(source, torch.float32, torch.device("cpu"), groups)
            for parameter in built.parameters():
                torch.nn.init.ones_(parameter)
            return built, Optimizer(built, settings, CpuRegion(Path(path)))

        def step(built, optimizer):
            for parameter in built.parameters():
                parameter.main_grad.fill_(0.5)
            optimizer.step(0.1)

        built, optimizer = build()
        step(built, optimizer)
        step(built, optimizer)
        kept = {name: tensor.clone() for name, tensor in optimizer.state()}
        optimizer.save(Path(path) / "state.pt")
        step(built, optimizer)
        again, resumed = build()
        resumed.load(Path(path) / "state.pt")
        step(again, resumed)
        return [kept, *({n: t.clone() for n, t in one.state()} for one in (optimizer, resumed))]
    finally:
        megatrons.Adam, megatrons.USING_PYTORCH_OPTIMIZER = adam, True
        parallel.stop()


def test_step_counts_in_groups_are_part_of_the_state(ranks, make_model):
    kept, further, resumed = ranks.run(counted, 1, str(make_model()))[0]
    counts = [name for name in kept if name.startswith("step/")]
    assert counts == ["step/group 0", "step/group 1"]
    assert all(kept[name].item() == 2 and further[name].item() == 3 for name in counts)
    assert further.keys() == resumed.keys()
    assert all(torch.equal(further[name], resumed[name]) for name in further)


def trained(rank: int, world_size: int, store: str, config: Any, batches: list[RolloutBatch]) -> Any:
    """Train; return norms, weights, and for each parameter the bytes of the region and of the state."""
    from vime_runtime.trainer.trainer import Trainer

    with closing(Trainer(config, rank, world_size, FileStore(store, world_size))) as trainer:
        norms = [trainer.train_step(batch)["train/grad_norm"] for batch in batches]
        weights = {name: tensor.clone() for name, tensor in trainer.weights()}
        state = sum(tensor.nbytes for _, tensor in trainer._optimizer.state())
        region = sum(size for _, size in trainer._region._arena.live_ranges())
        parameters = sum(parameter.numel() for parameter in trainer._model.parameters())
        return norms, weights, region / parameters, state / parameters


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_a_distributed_optimizer_trains_as_a_replicated_one_with_less_memory(
    ranks, make_model, make_batch, run_file, family, dtype
):
    model = make_model(family, hidden_size=256, dtype=getattr(torch, dtype))
    batches = [make_batch(seed) for seed in range(3)]
    found = {}
    for distributed in (False, True):
        config = run_file(
            model, model__dtype=dtype, train__distributed_optimizer=distributed, optimizer__clip_grad=0.05
        )
        found[distributed] = ranks.run(trained, 2, config, batches)
    for (norms, weights, region, state), (own_norms, own_weights, own_region, own_state) in zip(
        found[False], found[True], strict=True
    ):
        assert own_norms == pytest.approx(norms, **relative(torch.float32, 64))
        assert min(norms) > 0.05  # the gradient was clipped
        for name, tensor in weights.items():
            # Sums over two ranks, and their norm, in another order.
            close = of_rounding(torch.float32 if dtype == "float32" else torch.bfloat16, 2)
            torch.testing.assert_close(own_weights[name], tensor, rtol=close["rtol"], atol=1e-6)
        each = REGION[dtype]
        sharded = each - SHARDED[dtype] / 2
        # Megatron pads parameters to 64 values and buffers to 128, and arenas align tensors.
        assert (region, own_region) == pytest.approx((each + GRADIENT, sharded + GRADIENT), rel=0.03)
        assert (state, own_state) == pytest.approx((each, each / 2), rel=0.03)
