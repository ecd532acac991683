"""The engine's end of the sync, in every vLLM worker: buckets into the model, however they came here.

How a worker is handed a bucket depends on the release (``sync/generations``); which tensor goes into
which parameter is the loader's affair (``sync/direct_loader.py``).
"""

from __future__ import annotations

import torch

from vime_runtime.weight_sync.buckets import view
from vime_runtime.weight_sync.device_identity import chip_id, machine_id
from vime_runtime.weight_sync.device_ipc import DevicePeer
from vime_runtime.weight_sync.direct_loader import DirectLoader
from vime_runtime.weight_sync.ipc import HostPeer
from vime_runtime.weight_sync.message import BucketMessage
from vime_runtime.weight_sync.transport import Place


class Receiver:
    """Takes buckets until every tensor that the model is filled from has come again."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._host = HostPeer()
        self._chip = None if self._device.type == "cpu" else DevicePeer(self._device)
        self._loader: DirectLoader | None = None

    def place(self) -> Place:
        """Where this worker reads its weights best."""
        return Place(machine_id(), None if self._chip is None else chip_id(self._device))

    def begin(self) -> None:
        """Begin anew; what an update that failed has left is dropped."""
        self._loader = DirectLoader(self._model)

    def receive(self, bucket: BucketMessage) -> None:
        """Load one bucket. When this returns the buffer may be overwritten.

        Raises:
            ValueError: a tensor is unknown, misshapen or comes twice.
            RuntimeError: no update has begun, or the bucket is in no memory that this worker can read.
        """
        loader = self._begun()
        buffer = self._open(bucket)
        for entry in bucket.tensors:
            loader.load(entry.name, view(buffer, entry), entry.full, entry.start)
        if self._chip is not None:
            torch.get_device_module(self._device).current_stream().synchronize()

    def finish(self) -> None:
        """End the update.

        Raises:
            ValueError: tensors have not come; the update stays open for them.
            RuntimeError: no update has begun.
        """
        self._begun().finish()
        self._loader = None

    def close(self) -> None:
        """Let go of the trainer's buffer."""
        self._host.close()
        if self._chip is not None:
            self._chip.close()

    def _begun(self) -> DirectLoader:
        if self._loader is None:
            raise RuntimeError("no weight update has begun")
        return self._loader

    def _open(self, bucket: BucketMessage) -> torch.Tensor:
        """Map the copy on this worker's own chip, or else the one in the memory of this machine."""
        if self._chip is not None and chip_id(self._device) in bucket.handles:
            return self._chip.open(bucket.handles)
        if self._chip is not None and machine_id() not in bucket.handles:
            raise RuntimeError(
                f"the trainer has no weights on this engine's device ({chip_id(self._device)}) nor in the "
                f"memory of its machine ({machine_id()}); it has some on {', '.join(bucket.handles)}"
            )
        return self._host.open(bucket.handles)
