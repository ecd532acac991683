"""What every generation offers to the worker extension."""

from __future__ import annotations

from typing import Any, Protocol

from vime_runtime.weight_sync.message import BucketMessage


class Route(Protocol):
    """The way of an update through one worker. Errors are those of ``Receiver``."""

    def begin(self) -> None:
        """Begin an update; what one that failed has left is dropped."""
        ...

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket; when this returns it may be overwritten."""
        ...

    def finish(self) -> None:
        """End the update, or leave it open for the tensors that it lacks."""
        ...


def reopen(worker: Any) -> None:
    """Let a worker forget an update that failed: vLLM refuses to begin another one while it remembers."""
    worker._weight_update_active = False
