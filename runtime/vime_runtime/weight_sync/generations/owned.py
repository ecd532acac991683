"""vLLM 0.25: the engine is made with the whole configuration and keeps the cycle of an update itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from vllm.config import VllmConfig
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
        self,
        config: WeightTransferConfig,
        vllm_config: VllmConfig,
        device: torch.device,
        model: torch.nn.Module,
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self.receiver = Receiver(model)

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Nothing: see InitInfo."""

    def start_weight_update(self) -> None:
        """Begin an update."""
        self.receiver.begin()

    def receive_weights(
        self,
        update_info: UpdateInfo,
        load_weights: Callable[[list[tuple[str, torch.Tensor]]], None] | None = None,
    ) -> None:
        """Load one bucket. The worker of vllm-ascend 0.25 and 0.26 hands over what is not needed."""
        self.receiver.receive(update_info.bucket)

    def finish_weight_update(self) -> None:
        """End the update."""
        self.receiver.finish()

    def shutdown(self) -> None:
        """Let go of the trainer's buffer."""
        self.receiver.close()

    @staticmethod
    def trainer_send_weights(iterator: Iterator[tuple[str, torch.Tensor]], trainer_args: Any) -> None:
        """Not this way: the trainer imports no vLLM."""
        raise NotImplementedError("weights are exported by vime_runtime.weight_sync.buckets.BucketExporter")


class BucketRoute:
    """Through the worker's methods to the engine's."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def begin(self) -> None:
        """Begin an update."""
        reopen(self._worker)
        self._worker.start_weight_update()

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket."""
        self._worker.update_weights({"bucket": bucket})

    def finish(self) -> None:
        """End the update."""
        self._worker.finish_weight_update()
