"""Run a run file with stale weights from step 4 on: ``python stale_weights.py FILE``.

The runtime has no such switch; this passes its own way of syncing to the same ``run``.
The engine gives its weights up when it sleeps, so "no sync" means that it is given the
weights of step 3 again and again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

from safetensors.torch import load_file
from vime_runtime.__main__ import run
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.train_loop import RolloutSide, TrainSide, sync_weights
from vime_runtime.weight_sync.buckets import BucketExporter

LAST_SYNC = 3


class StaleSync:
    """Syncs as the loop does until step 3, and keeps a copy of what it sent last."""

    def __init__(self, keep_in: Path, bucket_bytes: int) -> None:
        self._keep_in = keep_in
        self._bucket_bytes = bucket_bytes
        self._calls = 0

    def __call__(self, trainer: TrainSide, engine: RolloutSide) -> int:
        self._calls += 1
        if self._calls <= LAST_SYNC:
            trainer.save_pretrained(str(self._keep_in))
            return sync_weights(trainer, engine)
        stale = load_file(self._keep_in / "model.safetensors")
        exporter = BucketExporter(lambda: iter(stale.items()), self._bucket_bytes)
        return sync_weights(SimpleNamespace(next_bucket=exporter.next), engine)


if __name__ == "__main__":
    config = RunConfig.load(Path(sys.argv[1]))
    run_dir = Path(config.run_dir)
    sync = StaleSync(run_dir / "stale", config.recipe.sync.bucket_bytes)
    run(config, run_dir, EventLog(run_dir, config.steps), StopRequest(), sync)
