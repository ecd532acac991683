from __future__ import annotations

import json
from pathlib import Path

import pytest
from vime_runtime.spec.json_files import JsonLines
from vime_runtime.spec.private_values import SECRET, hide, pass_on, private_values
from vime_runtime.spec.run_config import RunConfig

from harness.run_config import make_run_config

VALUE = 'hunter22 "quoted" \\ ü'


@pytest.fixture(autouse=True)
def no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIME_SECRET_VALUES", "{}")


def test_run_file_has_no_private_value_and_a_process_of_the_run_gets_it(tmp_path: Path) -> None:
    variables = {"COOKIE": VALUE, "SHADE": "green"}
    config = make_run_config(
        {
            "recipe": {"env": variables},
            "environment": {"train": {**variables, "OTHER": "1"}},
            "overrides": [f"env.COOKIE={VALUE}", "env.SHADE=green"],
            "private": ["COOKIE"],
        }
    )
    file = tmp_path / "resolved.json"
    file.write_text(config.dump())
    assert "hunter22" not in file.read_text()
    shown = RunConfig.load(file)
    assert shown.recipe.env == {"COOKIE": SECRET, "SHADE": "green"}
    assert shown.overrides == [f"env.COOKIE={SECRET}", "env.SHADE=green"]
    pass_on({"COOKIE": VALUE})
    found = RunConfig.load(file)
    assert found.recipe.env == variables
    assert found.environment["train"] == {**variables, "OTHER": "1"}


def test_values_are_hidden_in_text_and_in_json(tmp_path: Path) -> None:
    pass_on({"COOKIE": VALUE, "SHORT": "1"})
    assert private_values() == {"COOKIE": VALUE, "SHORT": "1"}
    assert hide(f"got {VALUE} 1") == f"got {SECRET} 1"
    assert json.loads(hide(json.dumps({"text": f"got {VALUE}"}))) == {"text": f"got {SECRET}"}
    lines = JsonLines(tmp_path / "events.jsonl")
    lines.append({"error": {"message": f"bad {VALUE}"}})
    lines.close()
    assert json.loads((tmp_path / "events.jsonl").read_text()) == {"error": {"message": f"bad {SECRET}"}}
