"""Execute a run file with stale weights from step 4 on: ``python stale_weights.py FILE``.

The runtime has no such option; this passes another ``sync`` to the same ``run``. The engine drops its weights
when it sleeps, so "no sync" means that it gets the weights of step 3 again and again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors.torch import load_file
from vime_runtime.__main__ import run
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.train_loop import sync_weights
from vime_runtime.weight_sync.buckets import BucketExporter

LAST_SYNC = 3


class StaleSync:
    """Copies the weights as the loop does until step 3, and afterwards the saved weights of step 3."""

    def __init__(self, folder: Path, bucket_bytes: int) -> None:
        self._folder = folder
        self._bucket_bytes = bucket_bytes
        self._calls = 0

    def __call__(self, trainer: Any, engine: Any) -> int:
        self._calls += 1
        if self._calls <= LAST_SYNC:
            trainer.save_pretrained(self._folder)
            return sync_weights(trainer, engine)
        stale = load_file(self._folder / "model.safetensors")
        exporter = BucketExporter(lambda: iter(stale.items()), self._bucket_bytes)
        stale_trainer: Any = SimpleNamespace(next_bucket=exporter.next)
        return sync_weights(stale_trainer, engine)


if __name__ == "__main__":
    config = RunConfig.load(Path(sys.argv[1]))
    run_dir = Path(config.run_dir)
    sync = StaleSync(run_dir / "stale", config.recipe.sync.bucket_bytes)
    run(config, EventLog(run_dir, config.steps), StopRequest(), sync)
