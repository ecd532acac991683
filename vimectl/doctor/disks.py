"""host: the disks that a run writes to."""

from __future__ import annotations

from vimectl.doctor import limits
from vimectl.doctor.estimate import estimate
from vimectl.doctor.finding import Check, Outcome, Subject, judged, size, skipped
from vimectl.doctor.subject_model import config

# Ray stops placing objects on a file system that is fuller (local_fs_capacity_threshold).
_FULL = 0.95
# Bytes of a state for each parameter: weights in bf16, and in fp32 those of the optimizer.
_STATE = {"bfloat16": 14, "float32": 12}


def checks() -> list[Check]:
    return [
        Check(
            "host.disk", "on the CPU the paused trainer's bytes wait in a file ([memory] arena_dir)", _disk
        ),
        Check("host.disk-tmp", f"Ray places no more objects when its disk is {_FULL:.0%} full", _disk_tmp),
        Check(
            "host.disk-runs",
            "a state takes 14 bytes a parameter (12 in fp32); one more than [checkpoint] keep is there",
            _disk_runs,
        ),
    ]


def _disk(subject: Subject) -> Outcome:
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe to compare with")
    if recipe.cluster.device != "cpu":
        return skipped(f"a paused trainer on {recipe.cluster.device} waits in memory, not on disk")
    place = recipe.memory.arena_dir or "."
    found = limits.space(subject.host, place)
    if found is None:
        return skipped(f"df gives no size of {place}")
    # The arena holds part of what the recipe takes of memory, so this is enough in any case.
    return judged(
        found.free >= recipe.memory.host_bytes,
        f"{size(found.free)} free at {place}",
        f"{size(recipe.memory.host_bytes)} free",
        "make room there, or set memory.arena_dir to a larger disk",
        bad="warn",
    )


def _disk_tmp(subject: Subject) -> Outcome:
    place = subject.host.environment.get("TMPDIR") or "/tmp"
    found = limits.space(subject.host, place)
    if found is None or not found.size:
        return skipped(f"df gives no size of {place}")
    return judged(
        found.free >= (1 - _FULL) * found.size,
        f"{size(found.free)} free of {size(found.size)} at {place}",
        f"{1 - _FULL:.0%} free",
        f"make room in {place}, or set TMPDIR to a larger disk",
        "warn",
    )


def _disk_runs(subject: Subject) -> Outcome:
    recipe, model = subject.recipe, config(subject)
    if recipe is None or isinstance(model, str):
        return skipped(model if isinstance(model, str) else "no recipe to compare with")
    try:
        parameters = estimate(recipe, model).parameters
    except KeyError as e:
        return skipped(f"the model's config.json has no {e} (recipe.model)")
    found = limits.space(subject.host, ".")
    if found is None:
        return skipped("df gives no size of .")
    # While a state is written, those that are kept and that of the best step are there as well.
    states = recipe.checkpoint.keep + 1 + (1 if recipe.evaluation.every else 0)
    state = _STATE[recipe.model.dtype] * parameters
    return judged(
        found.free >= states * state,
        f"{size(found.free)} free at .",
        f"{size(states * state)} free: {states} states of {size(state)}",
        "make room there, or put the run elsewhere with --run-dir",
        "warn",
    )
