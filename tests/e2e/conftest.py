"""Runs that several tests share."""

from __future__ import annotations

import pytest

from harness.runs.recipe_run import RecipeRun, run_recipe


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> RecipeRun:
    """The default recipe in bf16 at its default length."""
    kept = ("--set", 'watch.trackers=["tensorboard"]', "--set", "watch.rollouts=true")
    run = run_recipe(tmp_path_factory.mktemp("default") / "run", *kept)
    assert run.code == 0, run.output
    return run
