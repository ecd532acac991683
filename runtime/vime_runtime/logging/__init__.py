"""What a person can watch of a run beyond its journal: log files, TensorBoard, whole rollouts."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.logging.event_log import Callback
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.run_config import RunConfig


def asked_for(config: RunConfig, run_dir: Path) -> list[Callback]:
    """The watchers that the recipe's ``[watch]`` table asks for, and the driver's own log.

    Raises:
        UsageError: TensorBoard is asked for and not installed.
    """
    from vime_runtime.logging.process_log import Marks
    from vime_runtime.logging.rollouts import Rollouts

    watchers: list[Callback] = [Marks()]
    if config.recipe.watch.rollouts:
        watchers.append(Rollouts(run_dir / "rollouts.jsonl"))
    if config.recipe.watch.tensorboard:
        try:
            from vime_runtime.logging.tensorboard import Board
        except ImportError as e:
            message = f"watch.tensorboard is true, but TensorBoard cannot be imported: {e}"
            raise UsageError(message, "pip install tensorboard, or --set watch.tensorboard=false") from e
        watchers.append(Board(run_dir / "tensorboard"))
    return watchers
