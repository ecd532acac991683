"""What a person can watch of a run beyond its journal: log files, TensorBoard, whole rollouts."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.config import Config
from vime_runtime.journal import Watcher


def asked_for(config: Config, run_dir: Path) -> list[Watcher]:
    """The watchers that the recipe's ``[watch]`` table asks for, and the driver's own log."""
    from vime_runtime.watch.process_log import Marks
    from vime_runtime.watch.rollouts import Rollouts

    watchers: list[Watcher] = [Marks()]
    if config.recipe.watch.rollouts:
        watchers.append(Rollouts(run_dir / "rollouts.jsonl"))
    if config.recipe.watch.tensorboard:
        from vime_runtime.watch.board import Board

        watchers.append(Board(run_dir / "tensorboard"))
    return watchers
