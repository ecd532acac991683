"""``python -m vime_runtime FILE``: execute the run that a run file describes, in its run directory.

Exit codes: 0 the run finished; 1 it failed; 2 bad input; 3 the machine or cluster lacks something; 143 after
a stop request.
"""

from __future__ import annotations

import signal
import sys
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.checkpoint import random_state
from vime_runtime.checkpoint.manager import CheckpointManager
from vime_runtime.cluster import external_cluster
from vime_runtime.data.problems import ProblemFile, ProblemStream, problem_file, read_counts
from vime_runtime.graceful_stop import StopRequest, signal_when_parent_exits
from vime_runtime.logging.callbacks import configured_callbacks
from vime_runtime.logging.event_log import EventLog
from vime_runtime.logging.failure_report import report_end
from vime_runtime.process_environment import EnvSpec
from vime_runtime.rewards.pool import TRAINING_SET, RewardPool
from vime_runtime.scoring import Evaluation, Scorer
from vime_runtime.spec import events
from vime_runtime.spec.errors import TERMINATED, VimeError
from vime_runtime.spec.process_roles import DRIVER
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.train_loop import (
    MemoryMeter,
    RuntimeContext,
    Sync,
    sync_weights,
    train_loop,
    update_engine,
)

if TYPE_CHECKING:
    from vime_runtime.cluster.groups import TrainerGroup
    from vime_runtime.cluster.placement import Placement


def main(argv: list[str]) -> int:
    """Execute one run file and return the exit code."""
    config = RunConfig.load(Path(argv[1]))
    log = EventLog(Path(config.run_dir), config.steps)
    stop = StopRequest()
    stop.listen()
    signal_when_parent_exits(signal.SIGTERM)  # normally the supervisor stops this process
    try:
        with report_end(log, config.paths.logs):
            run(config, log, stop)
    except KeyboardInterrupt:
        return TERMINATED
    except VimeError as e:
        return e.exit_code
    except (Exception, SystemExit):  # exit() of the user's code is an error of the run too
        traceback.print_exc()
        return 1
    finally:
        log.close()
    return 0


def run(config: RunConfig, log: EventLog, stop: StopRequest, sync: Sync = sync_weights) -> None:
    """Start Ray, build trainer and engine, resume from the newest state, train, and save the model.

    Args:
        sync: copies the weights; a test replaces it to show that stale weights are noticed.

    Raises:
        KeyboardInterrupt: a stop request; the last finished step is saved.
        WrongEnvironment: a required variable of this process, or of one of its actors, has another value.
        VimeError: any other failure with a message for the user.
    """
    EnvSpec(values=config.environment["driver"], required=config.required["driver"]).require("the driver")
    log.callbacks += configured_callbacks(config, log.warn)
    if config.address is not None:
        log.starting(f"looking for the Ray cluster at {config.address}")
        external_cluster.require_cluster(config.address)
    log.starting("looking for a training state")
    checkpoints = CheckpointManager(config, log, stop)
    log.rewind(checkpoints.done)
    log.starting("starting Ray")
    from vime_runtime.cluster.actors import process_entry
    from vime_runtime.cluster.ray_cluster import ray_cluster

    log.processes([process_entry(DRIVER)])
    with (
        ray_cluster(config, log) as placement,
        closing(_reward_pool(config)) as pool,
        report_end(log, config.paths.logs),
    ):
        stop.listen()  # Ray has replaced the signal handler
        context = _load(config, placement, pool, checkpoints, log, stop, sync)
        _build(context)
        try:
            train_loop(context, first=checkpoints.done + 1)
            _save_model(context)
        except KeyboardInterrupt:
            checkpoints.save_finished(lambda: _make_trainer_resident(context))
            raise
    log.enter(events.DONE, step=config.steps)


def _reward_pool(config: RunConfig) -> RewardPool:
    """Start the reward processes; they import their functions while the actors start."""
    sets = {TRAINING_SET: config.recipe.data, **config.recipe.evaluation_sets()}
    return RewardPool(sets, Path(config.scratch_dir), config.paths.logs / "rewards.log", config.recipe.env)


def _load(
    config: RunConfig,
    placement: Placement,
    pool: RewardPool,
    checkpoints: CheckpointManager,
    log: EventLog,
    stop: StopRequest,
    sync: Sync,
) -> RuntimeContext:
    """Start the actors and open the files of problems."""
    from vime_runtime.cluster.groups import EngineGroup, PhaseForwarder, TrainerGroup

    trainer = TrainerGroup(config, placement)
    engine = EngineGroup(config, placement)
    log.processes(trainer.processes() + engine.processes())
    trainer.load()
    engine.load()
    recipe, folder = config.recipe, config.paths.problems
    counts = read_counts(folder)
    for name, data in {TRAINING_SET: recipe.data, **recipe.evaluation_sets()}.items():
        if warning := counts[name].warning(data.path, recipe.rollout.max_prompt_tokens):
            log.warn(warning)
    train = ProblemFile(problem_file(folder, TRAINING_SET))
    sets = {name: list(ProblemFile(problem_file(folder, name))) for name in recipe.evaluation_sets()}
    for possible in pool.wait_ready():
        log.warn(f"a reward process could {possible}: this platform does not restrict that")
    scorer = Scorer(pool, recipe.data.max_reward_failures, log)
    log.callbacks.append(PhaseForwarder(trainer, engine))
    return RuntimeContext(
        config=config,
        trainer=trainer,
        engine=engine,
        problems=ProblemStream(train, recipe.algorithm.prompts_per_step, recipe.algorithm.seed),
        scorer=scorer,
        evaluation=Evaluation(sets, recipe.evaluation, recipe.algorithm, scorer, log),
        checkpoints=checkpoints,
        memory=MemoryMeter(trainer, engine, placement.resident_bytes),
        log=log,
        stop=stop,
        sync=sync,
    )


def _build(context: RuntimeContext) -> None:
    """Build trainer and engine with the weights of the newest state, and leave the devices to the engine.

    Without a state, evaluate the policy before the first step, if the recipe has an evaluation.
    """
    trainer, engine, log = context.trainer, context.engine, context.log
    state = context.checkpoints.state
    log.starting("building the trainer")
    trainer.start()
    if state:
        log.starting(f"restoring step {state.step}")
        trainer.read_state(state.folder, state.step, state.random["ranks"])
    # The engine measures free memory when it starts, so the trainer must be offloaded.
    trainer.pause()
    log.starting("building the engine")
    engine.start()
    log.processes(engine.workers())
    trainer.set_readers(engine.weight_locations())
    row: dict[str, float] = {}
    if state:  # the engine has loaded the weights of the model directory
        engine.sleep()
        trainer.resume()
        update_engine(context, state.step, row)
        random_state.restore(state.random["driver"])
    elif context.evaluation.due(0):
        context.evaluation.run(engine, 0, row)
        log.baseline(row)


def _save_model(context: RuntimeContext) -> None:
    """Write the trained weights as a Hugging Face directory."""
    with context.stop.deferred():
        context.log.enter(events.SAVE, step=context.config.steps)
        context.engine.close()  # before the trainer resumes: the devices cannot hold both
        context.trainer.resume()
        context.trainer.save_pretrained(context.config.paths.final_model)


def _make_trainer_resident(context: RuntimeContext) -> TrainerGroup:
    """Kill the engine, even in the middle of a call, and give the devices to the trainer."""
    context.engine.kill()
    if context.trainer.offloaded:
        context.trainer.resume()
    return context.trainer


if __name__ == "__main__":
    sys.exit(main(sys.argv))
