"""``python -m vime_runtime FILE``: run what the file says, in its run directory, and report there.

Exit codes: 0 the run finished; 1 it failed; 2 its input is bad; 3 the machine or cluster lacks something;
143 it was told to stop.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime import logging, process_environment
from vime_runtime.cluster import external_cluster
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.gc_pause import gc_paused
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.errors import VimeError
from vime_runtime.spec.run_config import RunConfig

if TYPE_CHECKING:
    from vime_runtime.cluster.groups import EngineGroup, TrainerGroup
    from vime_runtime.train_loop import Sync


def main(argv: list[str]) -> int:
    """Run one run file and return the exit code."""
    config = RunConfig.load(Path(argv[1]))
    run_dir = Path(config.run_dir)
    journal = EventLog(run_dir, config.steps)
    stop = StopRequest()
    stop.listen()
    _stop_with_parent()
    try:
        with reporting(journal):
            run(config, run_dir, journal, stop)
    except KeyboardInterrupt:
        return 128 + signal.SIGTERM
    except VimeError as e:
        return e.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        journal.close()
    return 0


def run(
    config: RunConfig, run_dir: Path, journal: EventLog, stop: StopRequest, sync: Sync | None = None
) -> None:
    """Bring both sides up, go on from the newest training state, train, save, take both sides down.

    ``sync`` replaces the way weights travel; a test shows with it that the log-prob difference
    would tell.

    Raises:
        KeyboardInterrupt: it was asked to stop; the last finished step is kept.
        WrongEnvironment: this process, or one of its actors, does not have the environment that it needs.
    """
    process_environment.require_in_driver(config)
    journal.watchers += logging.asked_for(config, run_dir)
    if config.address is not None:
        journal.enter("start-up", detail=f"looking for the Ray cluster at {config.address}")
        external_cluster.require_answer(config.address)
    from vime_runtime.checkpoint.store import CheckpointStore

    journal.enter("start-up", detail="looking for a training state")
    states = CheckpointStore(run_dir / "checkpoints", config.settings_sha256)
    state = states.newest(passed_over=journal.warn)
    done = state.step if state else 0
    journal.rewind(done)

    journal.enter("start-up", detail="starting Ray")
    from vime_runtime.cluster import processes
    from vime_runtime.cluster.groups import EngineGroup, TrainerGroup
    from vime_runtime.cluster.phase_log import PhaseForwarder
    from vime_runtime.cluster.ray_cluster import cluster

    with cluster(config, tell=partial(journal.enter, "start-up", 0)) as placement, reporting(journal):
        # Ray replaced the handler; what it started is taken down by the context manager.
        stop.listen()
        trainer = TrainerGroup(config, placement)
        engine = EngineGroup(config, placement)
        journal.processes(processes.of_driver() + trainer.processes() + engine.processes())
        # What both sides import takes most of the start-up: they do it while the data is read here.
        trainer.load()
        engine.load()
        journal.enter("start-up", detail="reading the data")
        with gc_paused():
            from vime_runtime.checkpoint import random_state
            from vime_runtime.checkpoint.manager import CheckpointManager
            from vime_runtime.data import problems as data
            from vime_runtime.data import rewards
            from vime_runtime.evaluation import SCORE, Evaluation
            from vime_runtime.train_loop import hand_over, sync_weights, train_loop

        recipe = config.recipe
        tokenizer = data.load_tokenizer(recipe.model.path)
        to_train, held_out = data.read_both(recipe, tokenizer)
        problems = data.ProblemStream(to_train, recipe.algorithm.prompts_per_step, recipe.algorithm.seed)
        decode = partial(tokenizer.decode, skip_special_tokens=True)
        reward = rewards.get(recipe.data)
        evaluation = Evaluation(held_out, recipe.evaluation.every, decode, reward)
        keeper = CheckpointManager(config, states, done, trainer, evaluation.due, journal, stop)
        journal.watchers.append(PhaseForwarder(trainer, engine))
        journal.enter("start-up", detail="building the trainer")
        trainer.start()
        if state:
            journal.enter("start-up", detail=f"restoring step {done}")
            trainer.read_state(str(state.folder), done, state.random["ranks"])
        # The engine measures free memory when it starts: the trainer has to be out of the way.
        trainer.pause()
        journal.enter("start-up", detail="building the engine")
        engine.start()
        journal.processes(engine.workers())
        trainer.serve(engine.places())
        if state:
            engine.sleep()
            trainer.resume()
            hand_over(trainer, engine, done, journal, {}, sync or sync_weights)
            random_state.restore(state.random["driver"])
        elif evaluation.due(0):
            baseline: dict[str, float] = {}
            evaluation.report(engine, 0, journal, baseline)
            journal.event("evaluation", step=0, score=baseline[SCORE], best=False)
        try:
            train_loop(
                config,
                trainer,
                engine,
                problems,
                decode,
                reward,
                evaluation,
                keeper,
                journal,
                stop,
                placement.resident_bytes,
                sync or sync_weights,
                first=done + 1,
            )
            with stop.deferred():
                journal.enter("save", step=config.steps)
                engine.close()  # first: the devices never hold both sides
                trainer.resume()
                trainer.save_pretrained(str(run_dir / "checkpoints" / "final"))
        except KeyboardInterrupt:
            keeper.keep_finished(lambda: _leave_to_trainer(trainer, engine))
            raise
    journal.enter("done", step=config.steps)


@contextmanager
def reporting(journal: EventLog) -> Iterator[None]:
    """EventLog how the block ended before what it ran on is taken down: that may take long, or never end."""
    done = False
    try:
        yield
        done = True
    except VimeError as e:
        journal.error(e.kind, e.message, e.hint)
        raise
    except Exception as e:
        journal.error(type(e).__name__, _last_line(e), pid=_dead_actor(e))
        raise
    finally:
        journal.ending(done)


def _leave_to_trainer(trainer: TrainerGroup, engine: EngineGroup) -> None:
    """Give the devices to the trainer although the engine may be in the middle of something."""
    engine.kill()
    if trainer.paused:
        trainer.resume()


def _stop_with_parent() -> None:
    """End this process when its parent is gone, however it went.

    Whoever started this ends it in good order; this is for the case that all of them were killed at once.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _last_line(error: Exception) -> str:
    """The line of an error that says what happened; Ray wraps it in a remote traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _dead_actor(error: Exception) -> int | None:
    """The process of the actor whose death Ray reports; it may still be on its way out."""
    found = re.search(r"^\s*pid: (\d+)$", str(error), re.MULTILINE)
    by_itself = "its owner has died" not in str(error) and "its node has died" not in str(error)
    return int(found[1]) if found and by_itself else None


if __name__ == "__main__":
    sys.exit(main(sys.argv))
