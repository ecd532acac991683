"""The engine's end of the sync, in every vLLM worker: Hugging Face tensors into vLLM's packed parameters.

On a device vLLM's layerwise reload puts each module back into its checkpoint form, fills it when all
of its tensors have come, and runs what runs after loading. On the host, where our sleep mode keeps
vLLM from packing them (``rollout/host_sleep.py``), parameters are in that form all the time, and what
comes is written over what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from vime_runtime.sync.buckets import view
from vime_runtime.sync.device_ipc import DevicePeer
from vime_runtime.sync.ipc import HostPeer
from vime_runtime.sync.message import BucketMessage, TensorEntry
from vime_runtime.train.checkpoint import Checkpoint


@dataclass
class InitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: every bucket carries its handle."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One bucket."""

    bucket: BucketMessage


class BucketLoader(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Takes buckets until every tensor of the checkpoint that the engine started from has come again."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    def __init__(
        self,
        config: WeightTransferConfig,
        vllm_config: VllmConfig,
        device: torch.device,
        model: torch.nn.Module,
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self._shapes = Checkpoint(Path(vllm_config.model_config.model)).tensors()
        self._missing: set[str] = set()
        self._in_place = device.type == "cpu"
        self._peer = HostPeer() if self._in_place else DevicePeer(device)

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Nothing: see InitInfo."""

    def start_weight_update(self) -> None:
        """Begin anew; what an update that failed has left is dropped."""
        self._missing = set(self._shapes)
        if self._in_place:
            return
        for layer in self.model.modules():
            info = get_layerwise_info(layer)
            if info.can_load():
                info.load_numel = 0
                info.loaded_weights.clear()
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Load one bucket. When this returns the buffer may be overwritten.

        Raises:
            ValueError: a tensor is unknown, misshapen or comes twice; nothing of the bucket is loaded then.
        """
        bucket = update_info.bucket
        for entry in bucket.tensors:
            self._check(entry)
        buffer = self._peer.open(bucket.handles)
        with torch.no_grad():
            self.model.load_weights((entry.name, view(buffer, entry)) for entry in bucket.tensors)
        if not self._in_place:
            self._keep_unfinished(buffer)
        self._missing.difference_update(entry.name for entry in bucket.tensors)

    def finish_weight_update(self) -> None:
        """Process what the layers still hold back.

        Raises:
            ValueError: tensors have not come; the update stays open for them.
        """
        if self._missing:
            names = ", ".join(name for name in self._shapes if name in self._missing)
            raise ValueError(
                f"the weight update lacks {len(self._missing)} of {len(self._shapes)} tensors: {names}"
            )
        if not self._in_place:
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Let go of the trainer's buffer."""
        self._peer.close()

    def _check(self, entry: TensorEntry) -> None:
        expected = self._shapes.get(entry.name)
        if expected is None:
            raise ValueError(f"the weight update has a tensor {entry.name}, which the model does not have")
        if tuple(expected) != entry.shape:
            raise ValueError(
                f"tensor {entry.name} of the weight update has the shape {list(entry.shape)}; "
                f"the model's has {list(expected)}"
            )
        if entry.name not in self._missing:
            raise ValueError(f"tensor {entry.name} comes twice in one weight update")

    def _keep_unfinished(self, buffer: torch.Tensor) -> None:
        """Copy the tensors of modules that wait for more: the layerwise reload holds views of the buffer.

        At most one module waits when a model's tensors come in order, so the copies are small.
        """
        start = buffer.untyped_storage().data_ptr()
        for layer in self.model.modules():
            for _, call in get_layerwise_info(layer).loaded_weights:
                for name, value in call.arguments.items():
                    if _begins_at(value, start):
                        call.arguments[name] = value.clone()


def _begins_at(value: Any, address: int) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and not value.is_meta
        and value.untyped_storage().data_ptr() == address
    )
