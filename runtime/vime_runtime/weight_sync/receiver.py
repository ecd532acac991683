"""The engine's end of a weight sync, in every vLLM worker: from buckets into the model's parameters."""

from __future__ import annotations

import torch

from vime_runtime.weight_sync.buckets import view_entry
from vime_runtime.weight_sync.device_identity import location_of
from vime_runtime.weight_sync.direct_loader import DirectLoader
from vime_runtime.weight_sync.ipc import BufferReader
from vime_runtime.weight_sync.transport import BucketMessage, WeightLocation


class Receiver:
    """Load buckets until every tensor of the model has been received once."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._reader = BufferReader(self._device)
        self._loader: DirectLoader | None = None

    def location(self) -> WeightLocation:
        """Return the memory that this worker reads weights from if the trainer has a copy there."""
        return location_of(self._device)

    def begin(self) -> None:
        """Begin an update; discard the state of a failed one."""
        self._loader = DirectLoader(self._model)

    def receive(self, bucket: BucketMessage) -> None:
        """Load one bucket. When this returns the buffer may be overwritten.

        Raises:
            ValueError: a tensor is unknown or repeated, or has a wrong shape.
            RuntimeError: no update has begun, or this worker can read none of the bucket's copies.
        """
        loader = self._begun()
        buffer = self._open(bucket)
        for entry in bucket.tensors:
            loader.load(entry.name, view_entry(buffer, entry), entry.full_shape, entry.start)
        if self._device.type != "cpu":
            torch.get_device_module(self._device).current_stream().synchronize()

    def finish(self) -> None:
        """Finish the update.

        Raises:
            ValueError: tensors are missing; the update stays open for them.
            RuntimeError: no update has begun.
        """
        self._begun().finish()
        self._loader = None

    def _begun(self) -> DirectLoader:
        if self._loader is None:
            raise RuntimeError("no weight update has begun")
        return self._loader

    def _open(self, bucket: BucketMessage) -> torch.Tensor:
        """Map the copy on this worker's own device, or else the one in CPU memory of this machine."""
        here = self.location()
        for key in filter(None, (here.device, here.machine)):
            if key in bucket.handles:
                return self._reader.open(bucket.handles[key])
        raise RuntimeError(
            f"the trainer has no weights on this engine's device ({here.device or 'cpu'}) nor in the memory "
            f"of its machine ({here.machine}); it has some on {', '.join(bucket.handles)}"
        )
