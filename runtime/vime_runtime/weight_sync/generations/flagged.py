"""vLLM 0.22 to 0.24: the engine is made with the model, the worker keeps the cycle of an update.

The flag says that what comes is not in checkpoint format. It is, but the flag is what makes the worker
skip the layerwise reload, for which a colocated NPU has no memory; the function that the worker then
hands to the engine, which copies by vLLM's own parameter names, is left unused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from vllm.config.parallel import ParallelConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferEngine

from vime_runtime.weight_sync.generations.info import InitInfo, UpdateInfo
from vime_runtime.weight_sync.generations.route import reopen
from vime_runtime.weight_sync.message import BucketMessage
from vime_runtime.weight_sync.receiver import Receiver


class BucketEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Made by the worker when it has loaded the model."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def __init__(
        self, config: WeightTransferConfig, parallel_config: ParallelConfig, model: torch.nn.Module
    ) -> None:
        super().__init__(config, parallel_config, model)
        self.receiver = Receiver(model)

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Nothing: see InitInfo."""

    def receive_weights(
        self, update_info: UpdateInfo, load_weights: Callable[[list[tuple[str, torch.Tensor]]], None]
    ) -> None:
        """Load one bucket."""
        self.receiver.receive(update_info.bucket)

    def shutdown(self) -> None:
        """Let go of the trainer's buffer."""
        self.receiver.close()

    @staticmethod
    def trainer_send_weights(iterator: Iterator[tuple[str, torch.Tensor]], trainer_args: Any) -> None:
        """Not this way: the trainer imports no vLLM."""
        raise NotImplementedError("weights are exported by vime_runtime.weight_sync.buckets.BucketExporter")


class BucketRoute:
    """Through the worker's cycle, whatever engine it has."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._receiver = worker.weight_transfer_engine.receiver

    def begin(self) -> None:
        """Begin an update without layerwise reload."""
        reopen(self._worker)
        # Not through LLM.start_weight_update: from 0.25 on it does not pass the flag.
        self._worker.start_weight_update(is_checkpoint_format=False)
        self._receiver.begin()

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket."""
        self._worker.update_weights({"bucket": bucket})

    def finish(self) -> None:
        """End the update."""
        self._receiver.finish()
        self._worker.finish_weight_update()
