"""The learning rate of each step."""

from __future__ import annotations

import math

from vime_runtime.spec.recipe import OptimizerTable


def learning_rate(settings: OptimizerTable, step: int, steps: int) -> float:
    """Return the rate at ``step`` (from 1) of ``steps``: linear warm-up from 0, then ``decay`` to ``min_lr``.

    The rate depends on the steps that are done. The first step of a warm-up has a rate of 0, the first one
    after it has ``lr``, and ``min_lr`` would be the rate of step ``steps + 1``. Megatron-core's
    ``OptimizerParamScheduler`` and transformers' ``get_scheduler`` define it in the same way.
    """
    done = step - 1
    if done < settings.warmup_steps:
        return settings.lr * done / settings.warmup_steps
    progress = (done - settings.warmup_steps) / (steps - settings.warmup_steps)
    remaining = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
    }[settings.decay]
    return settings.min_lr + (settings.lr - settings.min_lr) * remaining
