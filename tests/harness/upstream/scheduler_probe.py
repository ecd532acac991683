"""Drive the asynchronous scheduler of a released vLLM through weight updates; see ascend_probe.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

from harness.upstream.partial_config import Settings


class Engine:
    """A scheduler with one request "a", steps that a test schedules, and the output that it gives them."""

    def __init__(self, module: ModuleType, drafts: int = 0) -> None:
        self.scheduler = _scheduler(module, drafts)
        self.request = self.add("a")

    def add(self, name: str) -> Any:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        parameters = SamplingParams(max_tokens=50, ignore_eos=True)
        self.request = Request(
            request_id=name,
            prompt_token_ids=list(range(20)),
            sampling_params=parameters,
            pooling_params=None,
        )
        self.scheduler.add_request(self.request)
        return self.request

    def step(self) -> Any:
        return self.scheduler.schedule()

    def output(self, step: Any, token: int) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        ids = list(step.num_scheduled_tokens)
        index = {name: position for position, name in enumerate(ids)}
        tokens = [[token] for _ in ids]
        self.scheduler.update_from_output(step, ModelRunnerOutput(ids, index, tokens, None, {}, []))

    def restart(self) -> None:
        """Do what a weight update does: discard everything computed with the old weights."""
        self.scheduler.reset_prefix_cache(reset_running_requests=True)

    def abort(self) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(["a"], RequestStatus.FINISHED_ABORTED)

    def run(self, count: int) -> list[Any]:
        """Let it compute with the new weights: tokens from 100 on. Returns tokens and placeholders."""
        for token in range(100, 100 + count):
            self.output(self.step(), token)
        request = self.request
        return [list(request.output_token_ids), request.num_output_placeholders]


def _scheduler(module: ModuleType, drafts: int) -> Any:
    import torch
    from vllm.config import CacheConfig, ObservabilityConfig, ParallelConfig, SchedulerConfig
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    scheduling = SchedulerConfig(
        max_num_seqs=8,
        max_num_batched_tokens=512,
        max_model_len=512,
        is_encoder_decoder=False,
        async_scheduling=True,
    )
    cache = CacheConfig(block_size=16, enable_prefix_caching=False)
    cache.num_gpu_blocks = 1000
    no = lambda: False  # noqa: E731
    config = Settings(
        model_config=Settings(max_model_len=512, is_encoder_decoder=False),
        scheduler_config=scheduling,
        cache_config=cache,
        parallel_config=ParallelConfig(),
        observability_config=ObservabilityConfig(),
        num_speculative_tokens=drafts,
        num_lookahead_tokens=0,
        max_concurrent_batches=2,
        speculative_config=Settings(
            num_speculative_tokens=drafts,
            max_num_new_slots_for_drafting=0,
            use_eagle=no,
            use_eagle_block_drop=no,
            uses_draft_model=no,
            uses_extract_hidden_states=no,
            use_dflash=no,
            use_ngram_gpu=no,
        )
        if drafts
        else None,
    )
    with suppress(ImportError):  # from 0.30 on
        from vllm.config.ec_manager_config import EncoderCacheManagerConfig
        from vllm_ascend.patch.platform import patch_balance_schedule

        config.ec_manager_config = EncoderCacheManagerConfig()
        off = Settings(short_request_first_config=Settings(enabled=False))
        patch_balance_schedule.init_ascend_config = lambda config: Settings(scheduler_config=off)
    layer = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return module.AsyncScheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(1000, [], [KVCacheGroupSpec(["layer"], layer)]),
        structured_output_manager=Settings(
            should_advance=lambda request: False, accept_tokens=lambda *a: True
        ),
        block_size=16,
        mm_registry=SimpleNamespace(supports_multimodal_inputs=lambda model: False),
        log_stats=False,
    )


def undisturbed(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    first = engine.step()
    second = engine.step()
    engine.output(first, 900)
    engine.output(second, 901)
    return engine.run(2)


def restarted_with_none_in_flight(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    engine.output(engine.step(), 900)
    engine.restart()
    return engine.run(3)


def restarted_with_one_in_flight(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    engine.output(engine.step(), 900)
    stale = engine.step()
    engine.restart()
    fresh = engine.step()
    engine.output(stale, -1)
    engine.output(fresh, 99)
    return engine.run(2)


def restarted_with_two_in_flight(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    stale = [engine.step(), engine.step()]
    engine.restart()
    fresh = engine.step()
    for step in stale:
        engine.output(step, -1)
    engine.output(fresh, 99)
    return engine.run(2)


def restarted_twice(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    first = engine.step()
    engine.restart()
    second = engine.step()
    engine.restart()
    engine.output(first, -1)
    engine.output(second, -1)
    return engine.run(2)


def restarted_with_rejected_drafts(module: ModuleType) -> list[Any]:
    engine = Engine(module, drafts=3)
    engine.output(engine.step(), 900)
    stale = engine.step()
    engine.restart()
    fresh = engine.step()
    engine.output(stale, -1)  # one token for four placeholders: all three drafts were rejected
    engine.output(fresh, 99)
    return engine.run(6)


def aborted_and_added_again(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    engine.output(engine.step(), 900)
    stale = engine.step()
    engine.abort()
    engine.add("a")
    fresh = engine.step()
    engine.output(stale, -1)
    engine.output(fresh, 99)
    return engine.run(2)


def aborted_with_another(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    other = engine.add("b")
    first, second = engine.step(), engine.step()
    engine.abort()
    engine.output(first, 900)
    engine.output(second, 901)
    assert engine.request is other
    return engine.run(2)


SCENES: list[Callable[[ModuleType], list[Any]]] = [
    undisturbed,
    restarted_with_none_in_flight,
    restarted_with_one_in_flight,
    restarted_with_two_in_flight,
    restarted_twice,
    restarted_with_rejected_drafts,
    aborted_and_added_again,
    aborted_with_another,
]


def observe(module: ModuleType) -> dict[str, Any]:
    """Return the result of each scene with this module of the asynchronous scheduler."""
    found: dict[str, Any] = {}
    for scene in SCENES:
        try:
            found[scene.__name__] = scene(module)
        except AssertionError:
            found[scene.__name__] = "AssertionError"
    return found
