from __future__ import annotations

import typing
from collections.abc import Iterator

import pytest
from pydantic import BaseModel, ValidationError
from vime_runtime.spec.recipe import REPLACED_KEYS, Recipe

from harness.run_config import make_recipe


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Every key of a schema with its description; a table is described by its docstring."""
    for name, field in model.model_fields.items():
        members = typing.get_args(field.annotation) or (field.annotation,)
        table = next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if table is None:
            yield prefix + name, field.description
        else:
            yield prefix + name, table.__doc__
            yield from keys(table, f"{prefix}{name}.")


def test_every_key_has_a_description() -> None:
    described = dict(keys(Recipe))
    assert len(described) > 60
    assert [key for key, description in described.items() if not description] == []


def test_replaced_keys_do_not_exist_and_name_existing_ones() -> None:
    known = dict(keys(Recipe))
    for old, advice in REPLACED_KEYS.items():
        assert old not in known
        new = advice.partition("use ")[2].partition(" = ")[0]
        assert not new or new in known


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("cluster", "colocate", False),
        ("cluster", "device", "cuda"),
        ("cluster", "nodes", 0),
        ("rollout", "top_p", 0.0),
        ("algorithm", "samples_per_prompt", 1),
        ("optimizer", "lr", "1e-6"),
        ("optimizer", "learning_rate", 1e-6),
    ],
)
def test_refuses_wrong_values_and_unknown_keys(table: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        make_recipe(**{table: {key: value}})


def test_knows_the_task_of_a_path() -> None:
    assert make_recipe(data={"path": "reasoning_gym:gcd"}).data.task == "gcd"
    assert make_recipe(data={"path": "/a/reasoning_gym:gcd"}).data.task is None


@pytest.mark.parametrize(("device", "default"), [("cpu", True), ("npu", False)])
def test_requests_are_seeded_by_default_where_it_is_cheap(device: str, default: bool) -> None:
    assert make_recipe(cluster={"device": device}).seeds_requests is default
    for given in (True, False):
        recipe = make_recipe(cluster={"device": device}, rollout={"per_request_seeds": given})
        assert recipe.seeds_requests is given


def test_graphs_are_captured_unless_eager() -> None:
    assert make_recipe().rollout.eager is False
