"""Drive the asynchronous scheduler of a released vLLM through weight updates; see ascend_probe.py."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

from harness.upstream.partial_config import Settings

# What can happen: the next step is scheduled; a weight update discards everything computed with the old
# weights; request "a" is aborted, or added; a second request "b" is added; the engine returns the output of a
# step (by its number) with a token for every request in it.
STEP, RESTART, ABORT, ADD_A, ADD_B = "step", "restart", "abort", "a", "b"
# The number of draft tokens, what happens, and how many steps follow.
SCENES: dict[str, tuple[int, list[Any], int]] = {
    "undisturbed": (0, [STEP, STEP, (0, 900), (1, 901)], 2),
    "restarted_with_none_in_flight": (0, [STEP, (0, 900), RESTART], 3),
    "restarted_with_one_in_flight": (0, [STEP, (0, 900), STEP, RESTART, STEP, (1, -1), (2, 99)], 2),
    "restarted_with_two_in_flight": (0, [STEP, STEP, RESTART, STEP, (0, -1), (1, -1), (2, 99)], 2),
    "restarted_twice": (0, [STEP, RESTART, STEP, RESTART, (0, -1), (1, -1)], 2),
    # One token for four placeholders: all three drafts were rejected.
    "restarted_with_rejected_drafts": (3, [STEP, (0, 900), STEP, RESTART, STEP, (1, -1), (2, 99)], 6),
    "aborted_and_added_again": (0, [STEP, (0, 900), STEP, ABORT, ADD_A, STEP, (1, -1), (2, 99)], 2),
    "aborted_with_another": (0, [ADD_B, STEP, STEP, ABORT, (0, 900), (1, 901)], 2),
}


def observe(module: ModuleType) -> dict[str, Any]:
    """Return the result of each scene with this module of the asynchronous scheduler."""
    found: dict[str, Any] = {}
    for name, scene in SCENES.items():
        try:
            found[name] = _play(module, *scene)
        except AssertionError:
            found[name] = "AssertionError"
    return found


def _play(module: ModuleType, drafts: int, events: list[Any], count: int) -> list[Any]:
    """Return tokens and placeholders of the request that was added last.

    After the events the engine computes with the new weights: tokens from 100 on.
    """
    from vllm.v1.request import RequestStatus

    scheduler = _scheduler(module, drafts)
    steps: list[Any] = []
    request = None
    for event in [ADD_A, *events, *((None, token) for token in range(100, 100 + count))]:
        if event == STEP:
            steps.append(scheduler.schedule())
        elif event == RESTART:
            scheduler.reset_prefix_cache(reset_running_requests=True)
        elif event == ABORT:
            scheduler.finish_requests([ADD_A], RequestStatus.FINISHED_ABORTED)
        elif event in (ADD_A, ADD_B):
            request = _request(event)
            scheduler.add_request(request)
        else:
            number, token = event
            step = scheduler.schedule() if number is None else steps[number]
            scheduler.update_from_output(step, _output(step, token))
    assert request
    return [list(request.output_token_ids), request.num_output_placeholders]


def _request(name: str) -> Any:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request

    return Request(
        request_id=name,
        prompt_token_ids=list(range(20)),
        sampling_params=SamplingParams(max_tokens=50, ignore_eos=True),
        pooling_params=None,
    )


def _output(step: Any, token: int) -> Any:
    from vllm.v1.outputs import ModelRunnerOutput

    ids = list(step.num_scheduled_tokens)
    index = {name: position for position, name in enumerate(ids)}
    return ModelRunnerOutput(ids, index, [[token] for _ in ids], None, {}, [])


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
            use_dspark=no,
            use_ngram_gpu=no,
        )
        if drafts
        else None,
    )
    with suppress(ImportError):  # from 0.30 on
        from vllm.config.ec_manager_config import EncoderCacheManagerConfig

        config.ec_manager_config = EncoderCacheManagerConfig()
    if balance := sys.modules.get("vllm_ascend.patch.platform.patch_balance_schedule"):
        off = Settings(short_request_first_config=Settings(enabled=False))
        balance.init_ascend_config = lambda config: Settings(scheduler_config=off)  # type: ignore[attr-defined]
    layer = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return module.AsyncScheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(1000, [], [KVCacheGroupSpec(["layer"], layer)]),
        structured_output_manager=Settings(
            should_advance=lambda *arguments, **options: False, accept_tokens=lambda *arguments: True
        ),
        block_size=16,
        mm_registry=SimpleNamespace(supports_multimodal_inputs=lambda model: False),
        log_stats=False,
    )
