"""The vLLM engine as the loop uses it: sample, sleep, wake, take new weights."""

from __future__ import annotations

import os
import random
from typing import Any

from vllm import LLM, SamplingParams

from vime_runtime import gc_pause
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.rollout.plugin import SLEEP_BACKEND
from vime_runtime.rollout.response import Response
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.message import BucketMessage
from vime_runtime.weight_sync.transport import WeightLocation

# Weights come from the trainer before every waking, so sleeping drops them.
DROP_WEIGHTS = 2
# Tokens of one sequence that the KV cache keeps together on a CPU, at least what vLLM's vectorised attention
# there wants. vLLM's default is 128, of which a short sequence wastes most.
BLOCK = 32
# What vLLM's sleep mode tells apart.
TAGS = ("weights", "kv_cache")


class Engine:
    """One engine with its tensor-parallel workers.

    The engine core lives in the calling process when ``VLLM_ENABLE_V1_MULTIPROCESSING`` is 0; with
    ``rollout.tensor_parallel`` above 1 each rank is a child process.
    """

    def __init__(self, config: RunConfig) -> None:
        self._rollout = config.recipe.rollout
        with gc_pause.children_gc_paused():
            self._llm = LLM(**_arguments(config))
        self._asleep: set[str] = set()

    def generate(
        self, prompts: list[list[int]], samples: int, seed: int, greedy: bool = False
    ) -> list[list[Response]]:
        """Sample ``samples`` responses to each prompt of token ids; the same seed gives the same responses.

        Greedy decoding takes the likeliest token; its log-probs are at temperature 1.
        """
        seeds = random.Random(seed)
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [self._sampling(samples, seeds.getrandbits(31), greedy) for _ in prompts],
            use_tqdm=False,
        )
        return [[_response(sample) for sample in output.outputs] for output in outputs]

    def sleep(self) -> None:
        """Give back the memory of weights and KV cache; both are lost."""
        self._llm.sleep(level=DROP_WEIGHTS)
        self._asleep = set(TAGS)

    def wake(self, tag: str) -> None:
        """Take back the memory of ``weights`` or ``kv_cache``; it can generate when it has both."""
        self._llm.wake_up(tags=[tag])
        self._asleep.discard(tag)

    def weight_locations(self) -> list[WeightLocation]:
        """Return the memory that each worker reads weights from most directly."""
        return self._llm.collective_rpc("weight_location")

    def begin_update(self) -> None:
        """Begin to take new weights; an update that failed may be begun again."""
        self._llm.collective_rpc("begin_bucket_update")

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket. When this returns the trainer may overwrite it.

        Raises:
            ValueError or RuntimeError (from a worker process): a tensor is unknown, misshapen or comes twice.
        """
        self._llm.collective_rpc("load_bucket", args=(bucket,))

    def end_update(self) -> None:
        """Finish the update.

        Raises:
            ValueError or RuntimeError (from a worker process): tensors are missing, all of them named.
        """
        self._llm.collective_rpc("finish_bucket_update")

    def mark_phase(self, phase: str, step: int) -> None:
        """Let the worker processes mark the phase in their logs."""
        if self._rollout.tensor_parallel > 1:
            self._llm.collective_rpc("mark_phase", args=(phase, step))

    def memory_usage(self) -> MemoryUsage:
        """Weights and KV cache, summed over the workers, as the kernel sees them."""
        return MemoryUsage.total(self._llm.collective_rpc("memory_usage", args=(sorted(self._asleep),)))

    def worker_pids(self) -> list[int]:
        """The worker processes by rank; none when the worker lives in this process."""
        return [pid for pid in self._llm.collective_rpc("process_id") if pid != os.getpid()]

    def close(self) -> None:
        """Stop the workers."""
        self._llm.llm_engine.engine_core.shutdown()

    def _sampling(self, samples: int, seed: int, greedy: bool) -> SamplingParams:
        return SamplingParams(
            n=samples,
            temperature=0.0 if greedy else self._rollout.temperature,
            top_p=1.0 if greedy else self._rollout.top_p,
            max_tokens=self._rollout.max_response_tokens,
            seed=None if greedy else seed,
            logprobs=0,  # of the sampled token alone
            detokenize=False,
        )


def _arguments(config: RunConfig) -> dict[str, Any]:
    recipe = config.recipe
    on_cpu = recipe.cluster.device == "cpu"
    arguments: dict[str, Any] = {
        "model": recipe.model.path,
        "dtype": recipe.model.dtype,
        "tensor_parallel_size": recipe.rollout.tensor_parallel,
        "enable_expert_parallel": recipe.rollout.expert_parallel,
        "distributed_executor_backend": "uni" if recipe.rollout.tensor_parallel == 1 else "mp",
        "max_model_len": recipe.rollout.max_prompt_tokens + recipe.rollout.max_response_tokens,
        "gpu_memory_utilization": recipe.rollout.gpu_memory_utilization,
        "kv_cache_memory_bytes": recipe.rollout.kv_cache_bytes,
        "seed": recipe.algorithm.seed,
        # How to sample is the recipe's, not the model's generation_config.json's; from that vLLM takes
        # what ends a text in any case.
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        # A prefix cached under old weights would be wrong under the new ones.
        "enable_prefix_caching": False,
        # On a CPU compiling takes longer than a whole short run.
        "enforce_eager": on_cpu,
        "worker_extension_cls": "vime_runtime.rollout.worker.WorkerExtension",
        "enable_sleep_mode": True,
    }
    if on_cpu:
        from vime_runtime.rollout import cpu_norms  # needs a vLLM that NPUs do not have yet

        arguments["sleep_mode_backend"] = SLEEP_BACKEND
        arguments["block_size"] = BLOCK
        arguments["ir_op_priority"] = cpu_norms.PRIORITY
    if recipe.cluster.device == "npu":
        # vllm-ascend refuses to wake, and to take weights, in its own format of weights. From 0.27 on it
        # reads this alone, before that VLLM_ASCEND_ENABLE_NZ as well.
        arguments["additional_config"] = {"weight_nz_mode": 0}
    return arguments


def _response(sample: Any) -> Response:
    token_ids = list(sample.token_ids)
    logprobs = [step[token].logprob for step, token in zip(sample.logprobs, token_ids, strict=True)]
    if sample.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"the engine gave a response up: {sample.finish_reason}")
    return Response(token_ids, logprobs, sample.finish_reason)
