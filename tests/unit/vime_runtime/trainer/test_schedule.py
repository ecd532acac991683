"""The learning rate against the schedulers of transformers and Megatron-core."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import transformers
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from pydantic import ValidationError
from vime_runtime.trainer.schedule import learning_rate

from harness.run_config import make_recipe

LR = 1.0
# The same formulas in double precision.
EXACT = {"rel": 1e-12, "abs": 1e-15}


def rates(decay: str, warmup: int, min_lr: float, steps: int) -> list[float]:
    settings = make_recipe(
        optimizer={"lr": LR, "decay": decay, "warmup_steps": warmup, "min_lr": min_lr}
    ).optimizer
    return [learning_rate(settings, step, steps) for step in range(1, steps + 1)]


def rates_of_transformers(decay: str, warmup: int, min_lr: float, steps: int) -> list[float]:
    """Train ``steps`` steps in the usual order: optimizer, then scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    # Its constant and linear schedules have no lowest rate; linear with one is a polynomial of power 1.
    name, arguments = {
        ("constant", False): ("constant_with_warmup", {}),
        ("constant", True): ("constant_with_warmup", {}),
        ("linear", False): ("linear", {}),
        ("linear", True): ("polynomial", {"power": 1.0, "lr_end": min_lr}),
        ("cosine", False): ("cosine", {}),
        ("cosine", True): ("cosine_with_min_lr", {"min_lr": min_lr}),
    }[decay, min_lr > 0]
    scheduler = transformers.get_scheduler(name, optimizer, warmup, steps, arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def rates_of_megatron(decay: str, warmup: int, min_lr: float, steps: int) -> list[float]:
    optimizer = SimpleNamespace(param_groups=[{}])
    scheduler = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=LR,
        min_lr=min_lr,
        lr_warmup_steps=warmup,
        lr_decay_steps=steps,
        lr_decay_style=decay,
        start_wd=0.0,
        end_wd=0.0,
        wd_incr_steps=0,
        wd_incr_style="constant",
    )
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step(1)
    return found


@pytest.mark.parametrize("reference", [rates_of_transformers, rates_of_megatron])
@pytest.mark.parametrize("min_lr", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_rates_are_those_of_transformers_and_of_megatron(decay, warmup, min_lr, reference):
    steps = 8
    expected = reference(decay, warmup, min_lr, steps)
    assert rates(decay, warmup, min_lr, steps) == pytest.approx(expected, **EXACT)
    assert expected[0] == (0.0 if warmup else LR)


def test_a_linear_run_of_four_steps_starts_at_the_peak():
    assert rates("linear", 0, 0.0, 4) == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_a_run_of_one_step_trains_at_the_peak(decay):
    assert rates(decay, 0, 0.0, 1) == [LR]


def test_a_run_may_consist_of_warm_up_only():
    # Megatron refuses that; transformers returns these rates too.
    assert rates("cosine", 4, 0.1, 2) == [0.0, 0.25] == rates_of_transformers("cosine", 4, 0.1, 2)


@pytest.mark.parametrize("rate", [math.inf, math.nan, 0.0, -1.0])
def test_a_rate_that_is_no_positive_number_is_refused(rate):
    with pytest.raises(ValidationError, match=r"optimizer\.lr"):
        make_recipe(optimizer={"lr": rate})
