"""The methods that the engine adds to vLLM's workers and calls by ``collective_rpc``.

New weights come this way and not through vLLM's weight-transfer API. Its layerwise reload needs memory that a
colocated NPU does not have, and it changes from release to release: docs/explanation/weight-sync.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from vime_runtime.logging import process_log
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.weight_sync.receiver import Receiver
from vime_runtime.weight_sync.transport import BucketMessage, WeightLocation


class WorkerExtension:
    """A mixin that ``worker_extension_cls`` adds to vLLM's worker class as its last base.

    vLLM refuses an extension that has a name of the worker class.
    """

    get_model: Callable[[], torch.nn.Module]

    def mark_phase(self, phase: str, step: int) -> None:
        """Mark the phase in this worker's log."""
        process_log.mark_phase(phase, step)

    def memory_usage(self, asleep: list[str]) -> MemoryUsage:
        """Return the memory of this worker's weights and KV cache.

        Args:
            asleep: the tags whose memory is released at the moment.
        """
        backend: Any = getattr(self, "sleep_mode_backend", None)
        return backend.memory_usage() if hasattr(backend, "memory_usage") else _npu_memory_usage(asleep)

    def process_id(self) -> int:
        """Return the id of the process that this worker runs in."""
        return os.getpid()

    def seed_sampler(self, seed: int) -> None:
        """Seed the generators of this process from which requests without a seed draw.

        Every rank of an engine draws the tokens itself, so all must get the same seed. The generator is that
        of the device (``random_sample`` in vllm_ascend/sample/sampler.py at v0.22.1rc1), or on a CPU torch's
        (``forward_cpu`` in vllm/v1/sample/ops/topk_topp_sampler.py, 0.32.0). vLLM's ``set_random_seed`` seeds
        both in the same way, when a worker starts.
        """
        torch.manual_seed(seed)

    def weight_location(self) -> WeightLocation:
        """Return the memory that this worker reads weights from if the trainer has a copy there."""
        return self._bucket_receiver.location()

    def begin_bucket_update(self) -> None:
        """Begin an update of all weights; discard the state of a failed one."""
        self._bucket_receiver.begin()

    def load_bucket(self, bucket: BucketMessage) -> None:
        """Load one bucket of weights; when this returns it may be overwritten."""
        self._bucket_receiver.receive(bucket)

    def finish_bucket_update(self) -> None:
        """Finish the update, or raise ValueError and leave it open for the tensors that are missing."""
        self._bucket_receiver.finish()

    @cached_property
    def _bucket_receiver(self) -> Receiver:
        """The receiver of all updates, with the buffers that it has mapped."""
        return Receiver(self.get_model())


def _npu_memory_usage(asleep: list[str]) -> MemoryUsage:
    """Return the bytes of vllm-ascend's sleep mode that are allocated in this process at the moment.

    Its allocator keeps for every allocation a tag and a handle whose second entry is the size in bytes.
    """
    from vllm_ascend.device_allocator.camem import CaMemAllocator

    allocations: list[Any] = list(CaMemAllocator.get_instance().pointer_to_data.values())
    return MemoryUsage(sum(data.handle[1] for data in allocations if data.tag not in asleep))
