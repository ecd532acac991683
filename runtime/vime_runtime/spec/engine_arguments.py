"""The arguments of vLLM that the runtime sets, which ``[rollout.engine]`` of a recipe cannot have."""

from __future__ import annotations

from vime_runtime.spec.recipe import Recipe

# Name of the argument, and the recipe key that it comes from; without a key the runtime needs its own value.
_ALWAYS = {
    "model": "model.path",
    "dtype": "model.dtype",
    "tensor_parallel_size": "rollout.tensor_parallel",
    "enable_expert_parallel": "rollout.expert_parallel",
    "distributed_executor_backend": "",
    "max_model_len": "rollout.max_prompt_tokens and rollout.max_response_tokens",
    "max_num_seqs": "rollout.max_num_seqs",
    "max_num_batched_tokens": "rollout.max_num_batched_tokens",
    "enable_prefix_caching": "rollout.enable_prefix_caching",
    "gpu_memory_utilization": "rollout.gpu_memory_utilization",
    "kv_cache_memory_bytes": "rollout.kv_cache_bytes",
    "seed": "algorithm.seed",
    "generation_config": "",
    "logprobs_mode": "",
    "enforce_eager": "rollout.eager",
    "worker_extension_cls": "",
    "enable_sleep_mode": "",
}
_ON_CPU = {"sleep_mode_backend": "", "block_size": "", "ir_op_priority": ""}
# Those that split a prompt, or admit none that is longer.
_WITH_SEEDS_ON_CPU = dict.fromkeys(
    ("enable_chunked_prefill", "long_prefill_token_threshold", "max_num_scheduled_tokens"),
    "rollout.per_request_seeds",
)


def set_by_runtime(recipe: Recipe) -> dict[str, str]:
    """Return the names of these arguments, each with the recipe key that it comes from, or ""."""
    if recipe.cluster.device != "cpu":
        return _ALWAYS
    return _ALWAYS | _ON_CPU | (_WITH_SEEDS_ON_CPU if recipe.seeds_requests else {})
