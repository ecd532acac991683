"""The optimizer of core/optimizer/adamw.py: a kernel for each parameter, a step count for each group."""

from __future__ import annotations

import torch


class AdamW(torch.optim.Optimizer):
    """AdamW with decoupled weight decay. Megatron passes ``adam_w_mode``, which changes nothing: line 80."""

    def __init__(
        self,
        params: object,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        adam_w_mode: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient: lines 101-165."""
        for group in self.param_groups:
            if "step" in group:
                group["step"] += 1
            else:
                device = torch.cuda.current_device()  # redirected to the NPU
                group["step"] = torch.tensor(1, dtype=torch.int64, device=device)
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                torch._fused_adamw_(  # lines 32-46
                    [parameter],
                    [parameter.grad],
                    [state["exp_avg"]],
                    [state["exp_avg_sq"]],
                    [],
                    [group["step"]],
                    lr=group["lr"],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                )
