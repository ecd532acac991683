from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch


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


def counted(rank: int, world_size: int, master: str, path: str) -> list[dict[str, torch.Tensor]]:
    """Return the state after two steps, after the third, and after the third in a resumed optimizer."""
    from megatron.core import optimizer as megatrons
    from vime_runtime.memory.cpu_region import CpuRegion
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.trainer.optimizer import Optimizer

    settings = SimpleNamespace(lr=0.1, min_lr=0, weight_decay=0, beta1=0.9, beta2=0.9, eps=1e-8, clip_grad=0)
    groups = parallel.start("gloo", rank, world_size, master, 1)
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
