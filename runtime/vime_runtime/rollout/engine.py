"""The vLLM engine: sample, sleep, wake, load new weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind

from vime_runtime import gc_pause
from vime_runtime.batch import Response
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.rollout.plugin import SLEEP_BACKEND
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.transport import BucketMessage, WeightLocation

# The sleep level that discards the weights; the trainer sends new ones when the engine wakes.
DROP_WEIGHTS = 2
# Tokens in a block of the KV cache on a CPU, the least that vLLM's vectorized attention supports there. With
# vLLM's default of 128, short sequences waste most of a block.
BLOCK_SIZE = 32
# The tags of memory in vLLM's sleep mode.
TAGS = ("weights", "kv_cache")


class Engine:
    """One engine with its tensor-parallel workers.

    The engine core is in the calling process if ``VLLM_ENABLE_V1_MULTIPROCESSING`` is 0; with
    ``rollout.tensor_parallel`` above 1 each rank is a child process.
    """

    def __init__(self, config: RunConfig) -> None:
        self._rollout = config.recipe.rollout
        self._seeds_requests = config.recipe.seeds_requests
        with gc_pause.children_gc_paused():
            self._llm = LLM(**_arguments(config))
        self._tokenizer = self._llm.get_tokenizer()
        self._asleep: set[str] = set()

    def generate(
        self, prompts: list[list[int]], samples: int, seeds: list[int], temperature: float | None = None
    ) -> Iterator[tuple[int, list[Response]]]:
        """Sample ``samples`` responses to each prompt of token ids.

        With a seed for each request, the same seed gives the same response to a prompt in any batch, but for
        rounding. Without, only the generator that all requests draw from is seeded, with the first seed: the
        same seed gives the same responses to the same prompts, as long as the engine puts the same requests
        into each batch.

        Args:
            seeds: one for each prompt.
            temperature: instead of ``rollout.temperature``. 0 is greedy decoding, which takes the most likely
                token; its log-probs are at temperature 1.

        Yields:
            the index of a prompt and its responses, as soon as all of these are complete.
        """
        if not self._seeds_requests:
            self._llm.collective_rpc("seed_sampler", args=(seeds[0],))
        engine = self._llm.llm_engine
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            inputs: Any = {"prompt_token_ids": prompt}
            engine.add_request(str(index), inputs, self._sampling(samples, seed, temperature))
        while engine.has_unfinished_requests():
            output: Any
            for output in engine.step():
                if output.finished:
                    yield int(output.request_id), [self._response(sample) for sample in output.outputs]

    def sleep(self) -> None:
        """Release the memory of weights and KV cache; both are lost."""
        self._llm.sleep(level=DROP_WEIGHTS)
        self._asleep = set(TAGS)

    def wake(self, tag: str) -> None:
        """Allocate the memory of ``weights`` or ``kv_cache`` again; generating needs both."""
        self._llm.wake_up(tags=[tag])
        self._asleep.discard(tag)

    def weight_locations(self) -> list[WeightLocation]:
        """Return the memory that each worker reads weights from if the trainer has a copy there."""
        return self._llm.collective_rpc("weight_location")

    def begin_update(self) -> None:
        """Begin an update of all weights; after a failed one, begin again."""
        self._llm.collective_rpc("begin_bucket_update")

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket. When this returns the trainer may overwrite it.

        Raises:
            ValueError or RuntimeError (from a worker process): a tensor is unknown or repeated, or has a
                wrong shape.
        """
        self._llm.collective_rpc("load_bucket", args=(bucket,))

    def end_update(self) -> None:
        """Finish the update.

        Raises:
            ValueError or RuntimeError (from a worker process): tensors are missing; it names them all.
        """
        self._llm.collective_rpc("finish_bucket_update")

    def mark_phase(self, phase: str, step: int) -> None:
        """Mark the phase in the logs of the worker processes."""
        if self._rollout.tensor_parallel > 1:
            self._llm.collective_rpc("mark_phase", args=(phase, step))

    def memory_usage(self) -> MemoryUsage:
        """Return the memory of weights and KV cache, summed over the workers."""
        return MemoryUsage.total(self._llm.collective_rpc("memory_usage", args=(sorted(self._asleep),)))

    def worker_pids(self) -> list[int]:
        """Return the worker processes by rank; none if the worker is in this process."""
        return [pid for pid in self._llm.collective_rpc("process_id") if pid != os.getpid()]

    def close(self) -> None:
        """Stop the workers."""
        self._llm.llm_engine.engine_core.shutdown()

    def _sampling(self, samples: int, seed: int, temperature: float | None) -> SamplingParams:
        greedy = temperature == 0
        return SamplingParams(
            n=samples,
            temperature=self._rollout.temperature if temperature is None else temperature,
            top_p=1.0 if greedy else self._rollout.top_p,
            max_tokens=self._rollout.max_response_tokens,
            seed=seed if self._seeds_requests and not greedy else None,
            logprobs=0,  # of the sampled token alone
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _response(self, sample: Any) -> Response:
        token_ids = list(sample.token_ids)
        logprobs = [step[token].logprob for step, token in zip(sample.logprobs, token_ids, strict=True)]
        if sample.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"the engine aborted a response: {sample.finish_reason}")
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        return Response(token_ids, logprobs, sample.finish_reason, text)


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
        # Sampling parameters come from the recipe, not from the model's generation_config.json. vLLM takes
        # the stop tokens from there in any case.
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        # A prefix cached under old weights is wrong under new ones, and no weight update of vLLM's resets it.
        "enable_prefix_caching": False,
        # On a CPU, compiling takes longer than a whole short run.
        "enforce_eager": on_cpu or recipe.rollout.eager,
        "worker_extension_cls": "vime_runtime.rollout.worker.WorkerExtension",
        "enable_sleep_mode": True,
    }
    if on_cpu:
        from vime_runtime.rollout import cpu_norms  # needs a vLLM that is newer than those for NPUs

        arguments["sleep_mode_backend"] = SLEEP_BACKEND
        arguments["block_size"] = BLOCK_SIZE
        arguments["ir_op_priority"] = cpu_norms.PRIORITY
    if recipe.cluster.device == "npu":
        # Weights in its FRACTAL_NZ format cannot be updated: vllm-ascend refuses to wake with it. From 0.27
        # on it reads only this, before that VLLM_ASCEND_ENABLE_NZ as well.
        arguments["additional_config"] = {"weight_nz_mode": 0}
    return arguments
