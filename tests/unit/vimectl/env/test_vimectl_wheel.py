from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from vimectl.env.vimectl_wheel import make_wheel, repack


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


def test_wheel_of_an_installed_vimectl_is_that_of_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds the wheel of a checkout")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    wheel = make_wheel(tmp_path / "one")
    install = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, f"--prefix={tmp_path}/prefix", "--ignore-installed", wheel], check=True)
    (site,) = tmp_path.glob("prefix/lib/python3*/site-packages")
    (installed,) = distributions(path=[str(site)])
    assert repack(installed, tmp_path / "two").read_bytes() == wheel.read_bytes()
