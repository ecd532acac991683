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
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.transport import BucketMessage, WeightLocation

# The sleep level that discards the weights; the trainer sends new ones when the engine wakes.
DROP_WEIGHTS = 2
# Tokens in a block of the KV cache on a CPU, the least that vLLM's vectorized attention supports there. With
# vLLM's default of 128, short sequences waste most of a block.
BLOCK_SIZE = 32
# The tags of memory in vLLM's sleep mode.
TAGS = ("weights", "kv_cache")

_HINT = "change the key of [rollout] or [rollout.engine] that this is about; the log of the engine has more"


class Engine:
    """One engine with its tensor-parallel workers.

    The engine core is in the calling process if ``VLLM_ENABLE_V1_MULTIPROCESSING`` is 0; with
    ``rollout.tensor_parallel`` above 1 each rank is a child process.
    """

    def __init__(self, config: RunConfig) -> None:
        """Start vLLM. Raises UsageError if it refuses its arguments or cannot start with them."""
        self._rollout = config.recipe.rollout
        self._seeds_requests = config.recipe.seeds_requests
        with gc_pause.children_gc_paused():
            try:
                self._llm = LLM(**_arguments(config))
            except (TypeError, ValueError) as e:
                reason = " ".join(str(e).split())  # pydantic's has several lines
                raise UsageError(f"vLLM does not start with its arguments: {reason}", _HINT) from e
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
        unfinished = set(map(str, range(len(prompts))))
        try:
            for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
                inputs: Any = {"prompt_token_ids": prompt}
                engine.add_request(str(index), inputs, self._sampling(samples, seed, temperature))
            while engine.has_unfinished_requests():
                output: Any
                for output in engine.step():
                    if output.finished:
                        unfinished.remove(output.request_id)
                        yield int(output.request_id), [self._response(sample) for sample in output.outputs]
        finally:
            # After an error, or if the caller closes the generator: the next call must not get these.
            engine.abort_request(list(unfinished))

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
        """Begin an update of all weights. With one rank, an update can begin again after a failed one.

        With more, vLLM's executor leaves the responses of the other ranks to a failed call unread, and the
        next call gets them (``collective_rpc`` in vllm/v1/executor/multiproc_executor.py, 0.32.0).
        """
        # Prefixes cached under the old weights are wrong under the new ones. vLLM discards them when it
        # sleeps, but not for an update without sleep.
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the weights cannot change while the engine generates")
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
        recipe = self._rollout
        greedy = temperature == 0
        filters: dict[str, Any] = {"top_p": recipe.top_p, "top_k": recipe.top_k or 0, "min_p": recipe.min_p}
        return SamplingParams(
            n=samples,
            temperature=recipe.temperature if temperature is None else temperature,
            max_tokens=recipe.max_response_tokens,
            seed=seed if self._seeds_requests and not greedy else None,
            stop=recipe.stop,
            logprobs=0,  # of the sampled token alone
            detokenize=bool(recipe.stop),  # vLLM looks for them in its own text
            output_kind=RequestOutputKind.FINAL_ONLY,
            **({} if greedy else filters),
        )

    def _response(self, sample: Any) -> Response:
        token_ids = list(sample.token_ids)
        logprobs = [step[token].logprob for step, token in zip(sample.logprobs, token_ids, strict=True)]
        if sample.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"the engine aborted a response: {sample.finish_reason}")
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        if isinstance(sample.stop_reason, str):  # the stop text; a number is a stop token
            text = text.partition(sample.stop_reason)[0]
        return Response(token_ids, logprobs, sample.finish_reason, text)


def _arguments(config: RunConfig) -> dict[str, Any]:
    """Return the arguments of ``LLM``; ``spec.engine_arguments`` lists their names."""
    recipe = config.recipe
    rollout = recipe.rollout
    on_cpu = recipe.cluster.device == "cpu"
    max_model_len = rollout.max_prompt_tokens + rollout.max_response_tokens
    arguments: dict[str, Any] = {
        "model": recipe.model.path,
        "dtype": recipe.model.dtype,
        "tensor_parallel_size": rollout.tensor_parallel,
        "enable_expert_parallel": rollout.expert_parallel,
        "distributed_executor_backend": "uni" if rollout.tensor_parallel == 1 else "mp",
        "max_model_len": max_model_len,
        "max_num_seqs": rollout.max_num_seqs,
        "max_num_batched_tokens": rollout.max_num_batched_tokens,
        "enable_prefix_caching": rollout.enable_prefix_caching,
        "gpu_memory_utilization": rollout.gpu_memory_utilization,
        "kv_cache_memory_bytes": rollout.kv_cache_bytes,
        "seed": recipe.algorithm.seed,
        # Sampling parameters come from the recipe, not from the model's generation_config.json. vLLM takes
        # the stop tokens from there in any case.
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        # On a CPU, compiling takes longer than a whole short run.
        "enforce_eager": on_cpu or rollout.eager,
        "worker_extension_cls": "vime_runtime.rollout.worker.WorkerExtension",
        "enable_sleep_mode": True,
    }
    if on_cpu:
        from vime_runtime.rollout import cpu_norms  # needs a vLLM that is newer than those for NPUs

        arguments["sleep_mode_backend"] = SLEEP_BACKEND
        arguments["block_size"] = BLOCK_SIZE
        arguments["ir_op_priority"] = cpu_norms.PRIORITY
        if recipe.seeds_requests:
            # vLLM draws a token for a part of a prompt too, and then sets the request's generator back, which
            # torch cannot do on a CPU ("CPU Generator does not use offset"; _bookkeeping_sync in
            # vllm/v1/worker/gpu_model_runner.py, 0.32.0). So no prompt is split.
            arguments["enable_chunked_prefill"] = False
            arguments["long_prefill_token_threshold"] = 0
            arguments["max_num_scheduled_tokens"] = None
            if rollout.max_num_batched_tokens is not None:
                arguments["max_num_batched_tokens"] = max(rollout.max_num_batched_tokens, max_model_len)
    given = rollout.engine
    if not on_cpu:
        # Weights in its FRACTAL_NZ format cannot be updated: vllm-ascend refuses to wake with it. From 0.27
        # on it reads only this, before that VLLM_ASCEND_ENABLE_NZ as well.
        arguments["additional_config"] = {**given.get("additional_config", {}), "weight_nz_mode": 0}
    return given | arguments
