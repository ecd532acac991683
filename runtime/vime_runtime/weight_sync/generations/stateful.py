"""vLLM from 0.26 on: engines with state on both sides; an update may be meant for a draft model."""

from __future__ import annotations

from vime_runtime.weight_sync.generations import owned


class BucketEngine(owned.BucketEngine):
    """The worker's side. The trainer's is ``BucketExporter``, which imports no vLLM."""

    supports_draft_weight_update = False
