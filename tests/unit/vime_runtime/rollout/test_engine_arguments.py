"""The arguments that vLLM gets: those of the runtime, and those in ``[rollout.engine]``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.engine_arguments import set_by_runtime
from vime_runtime.spec.run_config import RunConfig

from harness.run_config import make_run_config


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(seed=0)


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], checkpoint: Path) -> Any:
    return start_engine(checkpoint, engine={"max_logprobs": 7}, max_num_seqs=3, max_num_batched_tokens=5)


def arguments(config: RunConfig) -> dict[str, Any]:
    """Return the arguments for an engine of this run."""
    from vime_runtime.rollout.engine import _arguments

    return _arguments(config)


@pytest.mark.parametrize(
    ("device", "seeds"), [("cpu", True), ("cpu", False), ("npu", False)], ids=["cpu", "no-seeds", "npu"]
)
def test_the_arguments_of_the_runtime_are_those_that_users_cannot_set(
    engine: Any, device: str, seeds: bool
) -> None:
    recipe = {"cluster": {"device": device}, "rollout": {"per_request_seeds": seeds}}
    config = make_run_config({"recipe": recipe})
    # Of additional_config it sets one entry.
    names = set(engine.process.run(arguments, config)) - {"additional_config"}
    assert names == set(set_by_runtime(config.recipe))


def test_entries_of_additional_config_are_kept(engine: Any) -> None:
    given = {"additional_config": {"refresh": True, "weight_nz_mode": 1}}
    recipe = {"cluster": {"device": "npu"}, "rollout": {"engine": given}}
    found = engine.process.run(arguments, make_run_config({"recipe": recipe}))
    assert found["additional_config"] == {"refresh": True, "weight_nz_mode": 0}


def test_vllm_gets_the_arguments_of_the_recipe(engine: Any) -> None:
    get = "_llm.llm_engine.vllm_config.{}.__getattribute__"
    assert getattr(engine, get.format("model_config"))("max_logprobs") == 7
    scheduler = getattr(engine, get.format("scheduler_config"))
    assert scheduler("max_num_seqs") == 3
    # With seeds on a CPU no prompt is split, so a batch has room for the longest one.
    assert scheduler("max_num_batched_tokens") == 16 + 12
    assert scheduler("enable_chunked_prefill") is False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            {"max_logprobs": "many"},
            r"UsageError: vLLM does not start with .*max_logprobs.*many",
        ),
        ({"no_such_argument": 1}, r"UsageError: vLLM does not start with .*no_such_argument"),
    ],
    ids=["value", "name"],
)
def test_an_argument_that_vllm_refuses_is_an_error_with_its_words(
    start_engine: Callable[..., Any], checkpoint: Path, argument: dict[str, Any], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        start_engine(checkpoint, engine=argument)
