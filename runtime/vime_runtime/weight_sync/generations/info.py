"""What is told to an engine: nothing at first, then one bucket at a time."""

from __future__ import annotations

from dataclasses import dataclass

from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo

from vime_runtime.weight_sync.message import BucketMessage


@dataclass
class InitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: every bucket carries its handles."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One bucket."""

    bucket: BucketMessage
