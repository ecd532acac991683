"""Run by test_cpu_0_32_megatron.py with a megatron-core on PYTHONPATH; prints what it observed as JSON.

"cpu" is the machine as it is. For "cuda", torch.cuda is a stand-in that logs every call and keeps one
generator, so that the released and the patched source can be compared call by call.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.tensor_parallel import random

RANKS = {"tp_rank": 0, "ep_rank": 0, "etp_rank": 0}
warnings: list[str] = []


class Remember(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warnings.append(record.getMessage())


def draws(seed: int, tp_rank: int = 0, inside: bool = True, generator: Any = None) -> list[list[float]]:
    """Numbers drawn outside, inside, outside and again inside of fork(), after seeding."""

    def draw() -> list[float]:
        return torch.rand(2, generator=generator).tolist()

    random.model_parallel_cuda_manual_seed(seed, **{**RANKS, "tp_rank": tp_rank}, force_reset_rng=True)
    drawn = []
    for forked in (False, True, False, True):
        if not forked:
            drawn.append(draw())
        elif inside:
            with random.get_cuda_rng_tracker().fork():
                drawn.append(draw())
    return drawn


def on_cpu() -> dict[str, Any]:
    seeded = draws(7)
    rotary = RotaryEmbedding(kv_channels=8, rotary_percent=1.0, rotary_base=1_000_000)
    state = torch.get_rng_state()
    try:
        with random.get_cuda_rng_tracker().fork():
            torch.rand(5)
            raise KeyError
    except KeyError:
        kept = bool(torch.equal(state, torch.get_rng_state()))
    return {
        "seeded": seeded,
        "again": draws(7),
        "other_rank": draws(7, tp_rank=1),
        "without_fork": draws(7, inside=False),
        "state_kept_after_error": kept,
        "rotary": rotary(3).flatten().tolist(),
        "rotary_device": rotary.inv_freq.device.type,
        "warnings": warnings,
    }


def on_stand_in_cuda() -> dict[str, Any]:
    calls: list[str] = []
    generator = torch.Generator()

    def log(name: str, result: Any = None) -> Any:
        calls.append(name)
        return result

    def state(device: Any = "cuda") -> torch.Tensor:
        return log(f"get_rng_state {device}", generator.get_state())

    class Default:
        def set_state(self, new: torch.Tensor) -> None:
            log("set_state")
            generator.set_state(new)

    torch.cuda.is_available = lambda: True
    torch.cuda.current_device = lambda: log("current_device", 0)
    torch.cuda.get_rng_state = torch.cuda.random.get_rng_state = state
    torch.cuda.manual_seed = lambda seed: (log(f"manual_seed {seed}"), generator.manual_seed(seed))
    torch.cuda.default_generators = (Default(),)
    random._lazy_call = lambda callback: callback()
    return {"draws": draws(7, generator=generator), "calls": calls}


if __name__ == "__main__":
    logging.getLogger("megatron").addHandler(Remember())
    logging.getLogger("megatron").setLevel(logging.WARNING)
    try:
        cpu = on_cpu()
    except (AssertionError, RuntimeError) as e:  # what torch raises where it has no CUDA
        cpu = {"error": str(e)}
    print(json.dumps({"cpu": cpu, "cuda": on_stand_in_cuda()}))
