from __future__ import annotations

import json
from pathlib import Path

import pytest

from vimectl.cli import run_cli
from vimectl.recipes.catalog import shipped_recipes


def test_list_names_every_shipped_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["--json", "recipe", "list"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "vimectl.recipe.list/1"
    assert [recipe["name"] for recipe in document["recipes"]] == sorted(shipped_recipes())


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["recipe", "show", "qwen3-4b-tp2"]) == 0
    assert capsys.readouterr().out == shipped_recipes()["qwen3-4b-tp2"].read_text()


def test_a_copy_is_valid_and_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["recipe", "copy", "qwen3-tiny-tp2", str(tmp_path / "new")]) == 0
    copy = tmp_path / "new" / "qwen3-tiny-tp2.toml"
    # Where the first line of the copy names it.
    assert json.loads((tmp_path / "new" / "recipe.schema.json").read_text())["title"] == "vimectl recipe"
    assert run_cli(["recipe", "validate", str(copy)]) == 0
    copy.write_text(copy.read_text().replace("tensor_parallel = 2", "tensor_parallel = 3"))
    assert run_cli(["recipe", "copy", "qwen3-tiny-tp2", str(tmp_path / "new")]) == 2
    assert run_cli(["recipe", "validate", str(copy)]) == 2
    err = capsys.readouterr().err
    assert "exists already" in err
    assert "'train.tensor_parallel': 3 does not divide the 2 devices" in err


def test_schema_describes_a_key_and_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["recipe", "schema", "rollout.top_k"]) == 0
    assert capsys.readouterr().out == (
        "rollout.top_k: integer > 0\n    Sample from the k most likely tokens only.\n"
    )
    assert run_cli(["recipe", "schema"]) == 0
    out = capsys.readouterr().out
    assert "\n[optimizer]\n    AdamW with linear warm-up" in out
    assert "\noptimizer.lr: number > 0, required\n    Peak learning rate.\n" in out
    assert run_cli(["recipe", "schema", "rollout.topk"]) == 2
    assert "Did you mean rollout.top_k" in capsys.readouterr().err


def test_schema_as_json_has_the_keys_and_the_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["recipe", "schema", "algorithm.seed", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "vimectl.recipe.schema/1"
    assert [(one["key"], one["type"], one["default"]) for one in document["keys"]] == [
        ("algorithm.seed", "integer", 0)
    ]
    assert document["json_schema"]["type"] == "integer"
    assert run_cli(["recipe", "schema", "--json"]) == 0
    assert "rollout" in json.loads(capsys.readouterr().out)["json_schema"]["properties"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[rollout.engine]\nmax_model_len = 64", "the runtime sets this argument of vLLM"),
        ('[evaluation.sets.gcd]\npth = "data.jsonl"', "unknown key 'evaluation.sets.gcd.pth'"),
    ],
)
def test_validate_checks_a_recipe_at_any_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{shipped_recipes()['qwen3-4b-tp2'].read_text()}\n{table}\n")
    assert run_cli(["recipe", "validate", str(path)]) == 2
    assert message in capsys.readouterr().err
