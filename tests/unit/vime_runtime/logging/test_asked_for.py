from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.logging import asked_for
from vime_runtime.spec.errors import UsageError

from harness.run_config import make_run_config


def names(tmp_path: Path, **watch: Any) -> list[str]:
    config = make_run_config({"recipe": {"watch": {"tensorboard": False, "rollouts": False} | watch}})
    return [type(watcher).__name__ for watcher in asked_for(config, tmp_path)]


def test_only_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    assert names(tmp_path) == ["Marks"]
    assert names(tmp_path, rollouts=True) == ["Marks", "Rollouts"]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tensorboard_is_named_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "vime_runtime.logging.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match="TensorBoard cannot be imported") as caught:
        names(tmp_path, tensorboard=True)
    assert "pip install tensorboard" in caught.value.hint
