"""Runs that several tests look at."""

from __future__ import annotations

import pytest

from harness.runs.recipe_run import Run, run_recipe


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The default recipe at its own length, in bf16, shared by the tests that look at the outcome."""
    kept = ("--set", "watch.tensorboard=true", "--set", "watch.rollouts=true")
    run = run_recipe(tmp_path_factory.mktemp("default") / "run", *kept)
    assert run.code == 0, run.output
    return run
