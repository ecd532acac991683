from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

from vimectl.recipes.resolve import required_preparation, resolve

GCD = "data.path=reasoning_gym:gcd"
VERIFIED = [GCD, "data.reward=verifier"]
EVALUATE = "evaluation.every=5"


def sets(*assignments: str, recipe: str = "qwen3-tiny-tp2") -> dict[str, DataTable]:
    return resolve(recipe, assignments=list(assignments)).recipe.evaluation_sets()


def test_a_recipe_without_evaluation_has_no_sets(tmp_path: Path) -> None:
    assert sets("evaluation.every=0", f"evaluation.path={tmp_path}/e.jsonl") == {}


def test_a_part_of_the_data_is_the_held_out_set() -> None:
    recipe = resolve("qwen3-tiny-tp2", assignments=[EVALUATE]).recipe
    assert recipe.holds_out_problems
    assert recipe.evaluation_sets() == {"held-out": recipe.data}


def test_a_file_of_problems_is_the_held_out_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = resolve("qwen3-tiny-tp2", assignments=[EVALUATE, "evaluation.path=e.jsonl"]).recipe
    assert not recipe.holds_out_problems
    path = str(tmp_path / "e.jsonl")
    assert recipe.evaluation_sets() == {"held-out": recipe.data.model_copy(update={"path": path})}


def test_a_task_of_the_evaluation_has_its_verifier_and_other_problems_than_the_training() -> None:
    recipe = resolve("qwen3-tiny-tp2", assignments=[EVALUATE, "evaluation.path=reasoning_gym:gcd"]).recipe
    held_out = recipe.evaluation_sets()["held-out"]
    assert (held_out.path, held_out.reward) == ("reasoning_gym:gcd", "verifier")
    own = [EVALUATE, GCD, "data.settings.max_numbers=2", "evaluation.path=reasoning_gym:gcd"]
    both = resolve("smollm2-135m", assignments=own).recipe
    held_out = both.evaluation_sets()["held-out"]
    assert held_out.settings["max_numbers"] == 2
    # Entry i has the seed of the task plus i.
    assert abs(held_out.settings["seed"] - both.data.settings["seed"]) > 1_000_000


def test_named_sets_inherit_what_they_leave_out(tmp_path: Path) -> None:
    found = sets(
        EVALUATE,
        "data.reward=my.module:score",
        "data.answer=tag",
        "data.prompt_key=q",
        f"evaluation.sets.plain.path={tmp_path}/e.jsonl",
        f"evaluation.sets.other.path={tmp_path}/f.parquet",
        "evaluation.sets.other.reward=math-verify",
        "evaluation.sets.other.answer=whole",
        "evaluation.sets.task.path=reasoning_gym:gcd",
        "evaluation.sets.task.settings.seed=3",
    )
    assert {name: (one.reward, one.answer, one.prompt_key) for name, one in found.items()} == {
        "plain": ("my.module:score", "tag", "q"),
        "other": ("math-verify", "whole", "q"),
        "task": ("verifier", "tag", "q"),
    }
    assert found["task"].settings == {"seed": 3}
    assert found["plain"].settings == {}


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ([*VERIFIED, "evaluation.path=e.jsonl"], r"'evaluation.path': a file has no verifier"),
        (
            ["evaluation.sets.a.path=e", "evaluation.sets.a.reward=verifier"],
            r"'evaluation.sets.a.path': a file",
        ),
        ([*VERIFIED, "evaluation.sets.a.path=e.jsonl"], r"'evaluation.sets.a.path': a file has no verifier"),
        (["evaluation.sets.a.path=e", "evaluation.path=f"], r"'evaluation.path': there are evaluation.sets"),
        (["evaluation.sets.train.path=e"], r"'evaluation.sets.train': this is the name of the problems"),
        (
            ["evaluation.sets.a.path=e", "evaluation.sets.a.reward=x"],
            r"'evaluation.sets.a.reward': 'x' is none",
        ),
        (["evaluation.sets.a.path=e", "evaluation.sets.a.settings.size=3"], r"'evaluation.sets.a.settings'"),
        (["data.chat_template_kwargs.think=false"], r"'data.chat_template_kwargs': it needs data.apply"),
    ],
)
def test_contradictions_are_found(assignments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("qwen3-tiny-tp2", assignments=assignments)


def test_a_file_has_a_reward_of_its_own_beside_a_task() -> None:
    own = [EVALUATE, GCD, "evaluation.sets.a.path=e.jsonl", "evaluation.sets.a.reward=exact-match"]
    assert sets(*own)["a"].reward == "exact-match"


@pytest.mark.parametrize("key", ["evaluation.path", "evaluation.sets.a.path"])
def test_an_evaluation_may_need_the_preparation(key: str, tmp_path: Path) -> None:
    own = ["model.path=/m", "data.path=/d"]
    assert required_preparation(resolve("qwen3-tiny-tp2", assignments=own).recipe) is None
    own.append(f"{key}={{prepared}}/problems.jsonl")
    assert required_preparation(resolve("qwen3-tiny-tp2", assignments=own).recipe)


@pytest.mark.parametrize(("mode", "steps"), [("smoke", 4), ("test", None), ("long", None)])
def test_epochs_replace_the_steps_of_long_modes(mode: str, steps: Any) -> None:
    assert resolve("qwen3-tiny-tp2", mode, ["train.epochs=2"]).steps == steps
