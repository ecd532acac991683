"""Runs that several tests look at."""

from __future__ import annotations

import pytest
from harness import Run, run_recipe


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four steps of the default recipe in bf16, shared by the tests that only look at the outcome."""
    run = run_recipe(tmp_path_factory.mktemp("smoke") / "run", "--mode", "smoke")
    assert run.code == 0, run.output
    return run
