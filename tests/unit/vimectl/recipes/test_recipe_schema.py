from __future__ import annotations

import json
from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.recipes import recipe_schema
from vimectl.recipes.catalog import shipped_recipes
from vimectl.util.resources import data_dir
from vimectl.util.toml import read_toml


def test_published_schema_is_current() -> None:
    published = data_dir("recipes") / recipe_schema.SCHEMA_FILE
    write = f"write it with: python -m vimectl.recipes.recipe_schema recipes/{recipe_schema.SCHEMA_FILE}"
    assert json.loads(published.read_text()) == recipe_schema.json_schema(), write


def test_every_shipped_recipe_names_the_schema_for_editors() -> None:
    first_lines = {path.read_text().partition("\n")[0] for path in shipped_recipes().values()}
    assert first_lines == {f"#:schema ./{recipe_schema.SCHEMA_FILE}"}


def broken(table: str, key: str, value: object) -> dict[str, Any]:
    data = read_toml(shipped_recipes()["qwen3-tiny-tp2"])
    data.setdefault(table, {})[key] = value
    return data


@pytest.mark.parametrize(
    "data",
    [
        broken("rollout", "temprature", 1.0),
        broken("rollout", "tensor_parallel", "2"),
        broken("rollout", "top_k", 0),
        broken("model", "dtype", "float16"),
        broken("env", "A", 1),
        broken("evaluation", "sets", {"gcd": {"problems": 3}}),
        broken("watch", "trackers", "wandb"),
    ],
)
def test_an_editor_marks_what_the_tool_refuses(data: dict[str, Any]) -> None:
    validator = pytest.importorskip("jsonschema").Draft7Validator(recipe_schema.json_schema())
    assert list(validator.iter_errors(data))


def test_an_editor_accepts_the_shipped_recipes() -> None:
    validator = pytest.importorskip("jsonschema").Draft7Validator(recipe_schema.json_schema())
    validator.check_schema(recipe_schema.json_schema())
    wrong = {name: list(validator.iter_errors(read_toml(path))) for name, path in shipped_recipes().items()}
    assert wrong == {name: [] for name in wrong}


def test_keys_have_type_default_and_description() -> None:
    keys = {one.key: one for one in recipe_schema.all_keys()}
    assert (keys["rollout.top_p"].type, keys["rollout.top_p"].default) == ("number > 0 and <= 1", 1.0)
    assert keys["rollout.tensor_parallel"].default_text == "required"
    assert keys["rollout.top_k"].default_text == ""
    assert keys["rollout.stop"].type == "array of string"
    assert keys["model.dtype"].type == '"bfloat16" or "float32"'
    assert keys["data.settings.NAME"].type == "any"
    free = ("NAME", "settings.NAME")
    assert [key for key, one in keys.items() if not one.description and not key.endswith(free)] == []


@pytest.mark.parametrize(
    ("key", "described"),
    [
        ("rollout.top_k", ["rollout.top_k"]),
        ("modes.smoke", ["modes.smoke", "modes.smoke.steps"]),
        ("evaluation.sets.gcd.path", ["evaluation.sets.NAME.path"]),
        ("data.settings.max_terms", ["data.settings.NAME"]),
    ],
)
def test_a_key_a_table_and_an_entry_with_a_free_name_are_described(key: str, described: list[str]) -> None:
    assert [one.key for one in recipe_schema.describe(key)] == described


def test_an_unknown_key_is_an_error_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'rollout.topk'\. Did you mean rollout\.top_k"):
        recipe_schema.describe("rollout.topk")
