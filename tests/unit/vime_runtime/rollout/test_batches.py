"""The same samples in any batch: prompts longer than a batch, few responses at a time, preemption."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.tolerances import LOGPROB_FP32

_choices = random.Random(0)
# Together 330 tokens; vLLM's default batch is above 4000.
PROMPTS = [[_choices.randrange(3, 64) for _ in range(length)] for length in (120, 90, 70, 40, 10)]
SAMPLES, SEED = 4, 3
ROLLOUT = {"max_prompt_tokens": 128, "max_response_tokens": 40}
# KV cache of one token in bytes: keys and values of 4 layers with 2 heads of 64 numbers in fp32.
TOKEN_BYTES = 2 * 4 * 2 * 64 * 4


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(seed=0)


@pytest.fixture(scope="module")
def expected(start_engine: Callable[..., Any], checkpoint: Path) -> list[list[Any]]:
    """Return the samples of an engine that gets each prompt alone, with enough room."""
    engine = start_engine(checkpoint, **ROLLOUT, enable_prefix_caching=False)
    return [
        dict(engine.generate([prompt], SAMPLES, [1_000_000 * SEED + 1000 * index]))[0]
        for index, prompt in enumerate(PROMPTS)
    ]


def check(found: list[list[Any]], expected: list[list[Any]]) -> None:
    for samples, others in zip(found, expected, strict=True):
        for response, other in zip(samples, others, strict=True):
            assert response.token_ids == other.token_ids
            assert response.logprobs == pytest.approx(other.logprobs, rel=0, abs=LOGPROB_FP32)
            assert (response.finish_reason, response.text) == (other.finish_reason, other.text)


EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [
        {"max_num_batched_tokens": 64},  # fewer than a prompt has
        pytest.param({"max_num_batched_tokens": 200}, marks=EXHAUSTIVE),  # fewer than two prompts have
        pytest.param({"max_num_seqs": 1}, marks=EXHAUSTIVE),
        {"max_num_seqs": 3, "max_num_batched_tokens": 170, "enable_prefix_caching": False},
        pytest.param({"max_num_batched_tokens": 65536, "tensor_parallel": 2}, marks=EXHAUSTIVE),
        {"max_num_batched_tokens": 64, "tensor_parallel": 2},
    ],
    ids=["prompt-exceeds", "prompts-exceed", "one", "three", "large-tp2", "prompt-exceeds-tp2"],
)
def test_samples_do_not_depend_on_the_limits_of_a_batch(
    start_engine: Callable[..., Any], checkpoint: Path, expected: list[list[Any]], limits: dict[str, Any]
) -> None:
    check(start_engine(checkpoint, **ROLLOUT | limits).sample(PROMPTS, SAMPLES, SEED), expected)


def count_preemptions() -> None:
    """Count the preemptions of this process's engine."""
    from vime_runtime.rollout import engine

    scheduler = engine.started._llm.llm_engine.engine_core.engine_core.scheduler
    engine.preemptions, preempt = 0, scheduler._preempt_request

    def counting(*args: Any, **kwargs: Any) -> None:
        engine.preemptions += 1
        preempt(*args, **kwargs)

    scheduler._preempt_request = counting


def preemptions() -> int:
    from vime_runtime.rollout import engine

    return engine.preemptions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("caching", "tensor_parallel"),
    [(True, 1), pytest.param(False, 1, marks=EXHAUSTIVE), pytest.param(True, 2, marks=EXHAUSTIVE)],
    ids=["caching", "no-caching", "caching-tp2"],
)
def test_samples_do_not_depend_on_preemption(
    start_engine: Callable[..., Any],
    checkpoint: Path,
    expected: list[list[Any]],
    caching: bool,
    tensor_parallel: int,
) -> None:
    # Room for one response of full length and little more.
    room = {"kv_cache_bytes": 240 * TOKEN_BYTES // tensor_parallel}
    engine = start_engine(
        checkpoint,
        tensor_parallel,
        **ROLLOUT,
        **room,
        max_num_batched_tokens=64,
        enable_prefix_caching=caching,
    )
    engine.process.run(count_preemptions)
    check(engine.sample(PROMPTS, SAMPLES, SEED), expected)
    assert engine.process.run(preemptions) > 0
