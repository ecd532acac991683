from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from vimectl.env.vimectl_wheel import make_wheel


def test_own_wheel_is_reproducible_and_has_the_data(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds the wheel of a checkout")
    wheels = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        wheels.append(make_wheel(tmp_path / name))
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    names = zipfile.ZipFile(wheels[0]).namelist()
    assert "vimectl/_data/patches/megatron-core/0.16.1/series.toml" in names
    assert "vimectl/images/locks/ascend-0.22.txt" in names
