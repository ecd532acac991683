"""Prefixes are cached, and no prefix cached under old weights is used under new ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from vime_runtime.weight_sync.buckets import BucketExporter

from harness.runtime.engine_process import count_hits, hits
from harness.tolerances import LOGPROB_FP32

_choices = random.Random(0)
PROMPTS = [[_choices.randrange(3, 64) for _ in range(length)] for length in (100, 70, 40)]
# Whole blocks of 32 tokens, but for the last token, which has to be computed to sample.
CACHEABLE = 96 + 64 + 32
SAMPLES, SEED = 4, 3
ROLLOUT = {"max_prompt_tokens": 128}


@pytest.fixture(scope="module")
def checkpoints(make_checkpoint: Callable[..., Path]) -> tuple[Path, Path]:
    return make_checkpoint(seed=0), make_checkpoint(seed=1)


@pytest.fixture(scope="module")
def fresh(start_engine: Callable[..., Any], checkpoints: tuple[Path, Path]) -> list[list[list[Any]]]:
    """Return the samples of a fresh engine without caching for each checkpoint."""
    engines = [start_engine(one, **ROLLOUT, enable_prefix_caching=False) for one in checkpoints]
    found = [engine.sample(PROMPTS, SAMPLES, SEED) for engine in engines]
    assert found[0] != found[1]
    return found


@pytest.fixture(scope="module")
def one_rank(start_engine: Callable[..., Any], checkpoints: tuple[Path, Path]) -> Any:
    return counting_engine(start_engine, checkpoints[0], 1)


@pytest.fixture(scope="module")
def two_ranks(start_engine: Callable[..., Any], checkpoints: tuple[Path, Path]) -> Any:
    return counting_engine(start_engine, checkpoints[0], 2)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


TWO_RANKS = pytest.param("two_ranks", marks=pytest.mark.slow)
each_engine = pytest.mark.parametrize("engine", ["one_rank", TWO_RANKS], indirect=True)


def counting_engine(start_engine: Callable[..., Any], checkpoint: Path, tensor_parallel: int) -> Any:
    started = start_engine(checkpoint, tensor_parallel, **ROLLOUT)
    started.process.run(count_hits)
    return started


def check(found: list[list[Any]], expected: list[list[Any]]) -> None:
    for samples, others in zip(found, expected, strict=True):
        for response, other in zip(samples, others, strict=True):
            assert response.token_ids == other.token_ids
            assert response.logprobs == pytest.approx(other.logprobs, rel=0, abs=LOGPROB_FP32)


@each_engine
def test_a_prompt_is_computed_once_for_all_its_samples(engine: Any, fresh: list[list[list[Any]]]) -> None:
    check(engine.sample(PROMPTS, SAMPLES, SEED), fresh[0])
    assert engine.process.run(hits) == (SAMPLES - 1) * CACHEABLE
    check(engine.sample(PROMPTS, SAMPLES, SEED), fresh[0])
    assert engine.process.run(hits) == SAMPLES * CACHEABLE


def sleep_and_update(engine: Any, checkpoint: Path, other: Path) -> None:
    engine.sleep()
    engine.wake("weights")
    engine.load_checkpoint(checkpoint)
    engine.wake("kv_cache")


def update_awake(engine: Any, checkpoint: Path, other: Path) -> None:
    engine.load_checkpoint(checkpoint)


def update_twice(engine: Any, checkpoint: Path, other: Path) -> None:
    engine.sleep()
    engine.wake("weights")
    engine.load_checkpoint(other)
    engine.load_checkpoint(checkpoint)
    engine.wake("kv_cache")


def update_after_samples_under_new_weights(engine: Any, checkpoint: Path, other: Path) -> None:
    engine.load_checkpoint(other)
    engine.sample(PROMPTS, 1, SEED)
    engine.load_checkpoint(checkpoint)


def update_after_a_failed_one(engine: Any, checkpoint: Path, other: Path) -> None:
    engine.begin_update()
    name = "model.layers.0.self_attn.q_proj.weight"
    with pytest.raises(AssertionError, match="q_proj"):
        engine.send(BucketExporter(lambda: iter([(name, torch.zeros(3, 3))]), 1024))
    engine.load_checkpoint(checkpoint)


ROUTES = [sleep_and_update, update_awake, update_twice, update_after_samples_under_new_weights]


@pytest.mark.parametrize(
    ("engine", "change"),
    [
        *(("one_rank", route) for route in (*ROUTES, update_after_a_failed_one)),
        *(pytest.param("two_ranks", route, marks=pytest.mark.slow) for route in ROUTES),
    ],
    indirect=["engine"],
)
def test_samples_after_an_update_are_those_of_a_fresh_engine(
    engine: Any,
    checkpoints: tuple[Path, Path],
    fresh: list[list[list[Any]]],
    change: Callable[[Any, Path, Path], None],
) -> None:
    engine.sample(PROMPTS, 1, SEED)  # fills the cache
    for weights in (1, 0):
        change(engine, checkpoints[weights], checkpoints[1 - weights])
        engine.process.run(hits)
        check(engine.sample(PROMPTS, SAMPLES, SEED), fresh[weights])
        assert engine.process.run(hits) == (SAMPLES - 1) * CACHEABLE


@each_engine
def test_a_sleep_that_keeps_the_weights_empties_the_cache(engine: Any, fresh: list[list[list[Any]]]) -> None:
    engine.sample(PROMPTS, 1, SEED)
    getattr(engine, "_llm.sleep")(level=1)
    getattr(engine, "_llm.wake_up")()
    engine.process.run(hits)
    check(engine.sample(PROMPTS, SAMPLES, SEED), fresh[0])
    assert engine.process.run(hits) == (SAMPLES - 1) * CACHEABLE
