"""Read all problems of a run before it starts, in a process of the runtime, which has the tokenizer."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vime_runtime.spec.run_paths import RunPaths

from vimectl.runs.plan import RunPlan, count_steps
from vimectl.runs.prepare import remove_abandoned
from vimectl.runs.progress import ProgressView
from vimectl.runs.runtime_module import run_module


@contextmanager
def read_data(plan: RunPlan, view: ProgressView) -> Iterator[RunPlan]:
    """Yield the plan with its problems and its number of steps. A run that is resumed has its problems.

    The block moves the problems into the run directory. Nothing else is left after it.

    Raises:
        UsageError: data, chat template or a reward function that cannot be used.
        CheckFailed, MissingRequirement, KeyboardInterrupt: as ``run_module`` raises them.
    """
    if RunPaths(plan.run_dir).problems.is_dir():
        yield plan
        return
    parent = plan.run_dir.parent
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    # Next to the run directory, because the folder is moved into it by a rename.
    partial = parent / f".{plan.run_dir.name}.{os.getpid()}"
    try:
        remove_abandoned(plan.run_dir)
        # Private: the recipe in it has the values of [env].
        partial.mkdir(mode=0o700, parents=True)
        problems = _read(plan, partial, view)
        yield replace(plan, problems=problems, steps=count_steps(plan.resolved, problems))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in missing:
            with contextlib.suppress(OSError):  # it does not exist, or there is a run directory in it
                folder.rmdir()


def _read(plan: RunPlan, partial: Path, view: ProgressView) -> Path:
    """Return the folder of problems that the runtime has written."""
    recipe, problems = partial / "recipe.json", RunPaths(partial).problems
    recipe.write_text(plan.resolved.recipe.model_dump_json(), encoding="utf-8")
    arguments = ["vime_runtime.data", str(recipe), str(problems)]
    run_module(arguments, partial, os.environ | plan.environment["driver"], view, "reading the data")
    return problems
