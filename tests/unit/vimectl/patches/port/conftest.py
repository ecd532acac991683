"""Provide the toy series as a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.patches.toy_series import Make, Toy


@pytest.fixture
def toy(tmp_path: Path) -> Make:
    return lambda old, new, *patches: Toy(tmp_path, old, new, *patches)
