"""vLLM before 0.22, and any worker without a weight-transfer API: vllm-ascend up to 0.21 has none.

The worker extension, which ``collective_rpc`` reaches, is all there is.
"""

from __future__ import annotations

from typing import Any

from vime_runtime.weight_sync.message import BucketMessage
from vime_runtime.weight_sync.receiver import Receiver


class BucketRoute:
    """Straight to the receiver."""

    def __init__(self, worker: Any) -> None:
        self._receiver = Receiver(worker.get_model())

    def begin(self) -> None:
        """Begin an update."""
        self._receiver.begin()

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket."""
        self._receiver.receive(bucket)

    def finish(self) -> None:
        """End the update."""
        self._receiver.finish()
