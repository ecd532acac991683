"""Reads the data of whole recipes, in this process and as the tool starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.data.__main__ import read_data
from vime_runtime.data.problems import Counts, Problem, ProblemFile, problem_file, read_counts
from vime_runtime.prepare.reversed_digits import build_tokenizer
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import Recipe

from harness.run_config import make_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Write a tokenizer and data; return a function that makes a recipe with them."""
    build_tokenizer(list("abcdefghij")).save_pretrained(tmp_path / "model")

    def make(lines: list[dict[str, Any]], **tables: Any) -> Recipe:
        path = tmp_path / "train.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        tables["data"] = {"path": str(path), "reward": "exact-match"} | tables.get("data", {})
        return make_recipe(model={"path": str(tmp_path / "model")}, **tables)

    return make


def lines(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "label": "x"} for prompt in prompts]


def read(recipe: Recipe, folder: Path) -> dict[str, list[Problem]]:
    counts = read_data(recipe, folder)
    assert counts == read_counts(folder)
    sets = {name: list(ProblemFile(problem_file(folder, name))) for name in counts}
    assert {name: len(problems) for name, problems in sets.items()} == {
        name: found.problems for name, found in counts.items()
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["counts.json", *(f"{name}.jsonl" for name in sets)]
    )
    return sets


def prompts(sets: dict[str, list[Problem]]) -> dict[str, str]:
    return {name: " ".join(problem.prompt for problem in problems) for name, problems in sets.items()}


def test_without_evaluation_there_is_the_training_set(recipe: Any, tmp_path: Path) -> None:
    made = recipe(lines("a", "b"), evaluation={"every": 0})
    assert prompts(read(made, tmp_path / "out")) == {"train": "a b"}


def test_a_part_of_the_data_is_held_out(recipe: Any, tmp_path: Path) -> None:
    letters = "abcdefghij"
    data = lines(*letters, *"abcde")  # five twice

    def held_out(seed: int) -> dict[str, list[Problem]]:
        made = recipe(data, evaluation={"every": 1, "problems": 4}, algorithm={"seed": seed})
        return read(made, tmp_path / f"out{seed}")

    sets = held_out(3)
    train, held = ({problem.prompt for problem in sets[name]} for name in ("train", "held-out"))
    assert len(sets["held-out"]) == 4
    assert not train & held
    assert train | held == set(letters)
    assert [problem.index for problem in sets["train"]] == sorted(problem.index for problem in sets["train"])
    assert held_out(3) == sets
    assert held_out(4)["held-out"] != sets["held-out"]


@pytest.mark.parametrize("count", [3, 64])
def test_holding_out_every_problem_is_an_error(recipe: Any, tmp_path: Path, count: int) -> None:
    made = recipe(lines("a", "b", "c"), evaluation={"every": 1, "problems": count})
    with pytest.raises(UsageError, match=rf"evaluation.problems = {count} leaves none of the 3 problems"):
        read_data(made, tmp_path / "out")


def test_each_evaluation_set_has_its_file(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"prompt": "f", "label": 1}\n{"prompt": "g", "label": 2}\n')
    task = {
        "path": "reasoning_gym:gcd",
        "settings": {"size": 9, "seed": 5},
        "problems": 3,
        "reward": "verifier",
    }
    evaluation = {"every": 1, "sets": {"file": {"path": str(tmp_path / "e.jsonl")}, "task": task}}
    made = recipe(lines("a"), evaluation=evaluation, rollout={"max_prompt_tokens": 500})
    sets = read(made, tmp_path / "out")
    assert prompts(sets) | {"task": ""} == {"train": "a", "file": "f g", "task": ""}
    assert [problem.label for problem in sets["file"]] == ["1", "2"]
    assert [problem.index for problem in sets["task"]] == [0, 1, 2]


def run(recipe: Recipe, folder: Path, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """Read data as the tool does; return exit code, events and stderr."""
    folder.mkdir()
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    command = [sys.executable, "-m", "vime_runtime.data", str(folder / "recipe.json"), str(folder / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, cwd=folder
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_process_counts_skipped_prompts_and_does_not_import_torch(recipe: Any, tmp_path: Path) -> None:
    made = recipe(lines("abc", "a" * 10, "b"))
    code, events, stderr = run(made, tmp_path / "run", PYTHONPROFILEIMPORTTIME="1")
    assert code == 0, stderr
    assert read_counts(tmp_path / "run/out")["train"] == Counts(2, 1, 10, 10)
    assert {(event["kind"], event["phase"]) for event in events} == {("phase", "prepare")}
    loaded = {line.split("|")[-1].strip() for line in stderr.splitlines()}
    assert "transformers" in loaded
    assert not {"torch", "ray", "vllm"} & loaded


def test_an_error_of_the_user_has_its_exit_code_and_words(recipe: Any, tmp_path: Path) -> None:
    code, events, _ = run(recipe(lines("a", "")), tmp_path / "data")
    assert code == 2
    assert events[-1]["error"]["message"] == f"{tmp_path}/train.jsonl:2: 'prompt' is empty"
    made = recipe(lines("a"), data={"reward": "nowhere:score"})
    code, events, _ = run(made, tmp_path / "reward")
    assert code == 2
    assert "nowhere" in events[-1]["error"]["message"]


def test_a_full_disk_is_a_missing_requirement(recipe: Any, tmp_path: Path) -> None:
    made = recipe(lines("a"))
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "recipe.json").write_text(made.model_dump_json())
    (folder / "out").mkdir()
    (folder / "out/train.jsonl").symlink_to("/dev/full")
    command = [sys.executable, "-m", "vime_runtime.data", str(folder / "recipe.json"), str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "no space left" in json.loads(done.stdout.splitlines()[-1])["error"]["message"]
