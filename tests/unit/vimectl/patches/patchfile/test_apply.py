"""Compare random patches with git, and search with atheris (libFuzzer) for one that breaks the reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import TESTS
from harness.patches.compare_with_git import compare

FIRST = [*range(0, 200, 50), *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(200, 10_000, 50))]
FUZZ_SECONDS = 600


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST)
def test_random_patches_apply_as_with_git(first: int) -> None:
    verdicts = [compare(seed) for seed in range(first, first + 50)]
    assert [what for verdict, what in verdicts if verdict == "disagree"] == []
    assert {how for _, how in verdicts} >= {"applied", "refused"}


@pytest.mark.exhaustive
def test_no_generated_patch_breaks_the_reader(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="not in the locks: .venv/bin/pip install atheris")
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "harness.patches.fuzz_patches", str(FUZZ_SECONDS)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-5000:]
