from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from vime_runtime.data import reasoning_gym
from vime_runtime.spec.errors import UsageError


@pytest.mark.parametrize(
    ("task", "settings", "message", "hint"),
    [
        ("chain_summ", {}, "has no task 'chain_summ'. Did you mean chain_sum", "it has ab, acre"),
        ("gcd", {"min_number": 2}, "no setting 'min_number'. Did you mean min_numbers", "it has min_numbers"),
        ("gcd", {"min_numbers": 5, "max_numbers": 2}, "the task gcd refuses its settings", "GCDConfig"),
        ("gcd", {"min_numbers": "two"}, "the task gcd refuses its settings", "GCDConfig"),
        ("gcd", {"size": 0}, "size must be a positive number", "GCDConfig"),
    ],
)
def test_errors_suggest_the_nearest_known_name(
    task: str, settings: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as error:
        reasoning_gym.create(f"reasoning_gym:{task}", settings)
    assert message in error.value.message
    assert hint in error.value.hint


# zss is needed to score a wrong answer, the others to make a puzzle.
@pytest.mark.parametrize(
    ("task", "package"), [("codeio", "zss"), ("game_of_life", "cellpylib"), ("zebra_puzzles", "pycosat")]
)
def test_a_missing_package_only_breaks_its_task(task: str, package: str) -> None:
    with pytest.raises(UsageError, match=f"the task {task} needs the package {package}, which is not"):
        reasoning_gym.create(f"reasoning_gym:{task}", {})
    assert package not in sys.modules
    assert len(reasoning_gym.create("reasoning_gym:chain_sum", {"size": 3})) == 3


def check(path: str, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "vime_runtime.data.reasoning_gym",
        path,
        json.dumps(settings),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_check_does_not_import_torch() -> None:
    good = check("reasoning_gym:gcd", {"size": 2})
    assert (good.returncode, good.stdout) == (0, "")
    loaded = {line.split("|")[-1].strip() for line in good.stderr.splitlines()}
    assert "reasoning_gym" in loaded
    assert not {"torch", "transformers", "vllm"} & loaded
    bad = check("reasoning_gym:gdc", {})
    assert bad.returncode == 2
    assert "Did you mean gcd" in json.loads(bad.stdout)["message"]
