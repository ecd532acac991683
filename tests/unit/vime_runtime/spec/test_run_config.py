from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError
from vime_runtime.spec.run_config import RunConfig

from harness.run_config import make_run_config

REQUIRED = {"train": {"TMS_HOOK_MODE": {"accepts": "torch", "reason": "pluggable allocator"}}}


def test_a_file_gives_back_the_same_configuration(tmp_path: Path) -> None:
    config = make_run_config({"address": "head:6379", "required": REQUIRED, "recipe": {"env": {"A": "b"}}})
    text = config.dump()
    assert '"schema": "vimectl.run/1"' in text
    (tmp_path / "resolved.json").write_text(text)
    assert RunConfig.load(tmp_path / "resolved.json") == config
    assert pickle.loads(pickle.dumps(config)) == config  # Ray passes it to the actors


def test_refuses_another_schema_and_unknown_keys() -> None:
    for change in ({"schema": "vimectl.run/2"}, {"color": "blue"}, {"steps": 0}):
        with pytest.raises(ValidationError):
            make_run_config(change)
