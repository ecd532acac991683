"""Environments share the files of uv's cache: what changes one must not change another, nor the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file

from harness.patches.toy_packages import STAGES, Tree, build_series
from harness.wheels import write_wheel

VIMECTL = [sys.executable, "-m", "vimectl"]


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the site-packages of two environments with the same package, linked to one cache."""
    wheel = write_wheel(tmp_path / "wheels", "toy", files=STAGES[0])
    (tmp_path / "lock.txt").write_text(f"toy==1.0 --hash=sha256:{sha256_file(wheel)}\n")
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("one", "two"):
        interpreter = ["--python", str(tmp_path / name)]
        subprocess.run([sys.executable, "-m", "uv", "venv", "-q", tmp_path / name], check=True)
        command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-config", "--no-index"]
        command += [*interpreter, "--find-links", str(wheel.parent), "-r", str(tmp_path / "lock.txt")]
        subprocess.run(command, check=True)
    one, two = (next((tmp_path / name).glob("lib/python3*/site-packages")) for name in ("one", "two"))
    shared = one / "toy" / "both.py"
    assert shared.samefile(two / "toy" / "both.py")
    return one, two


def snapshot(*folders: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return inode, mode, time of change and content of every file."""
    return {
        str(path): (status.st_ino, status.st_mode, status.st_mtime_ns, path.read_bytes())
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (status := path.stat())
    }


def test_patches_of_one_environment_do_not_change_another(
    environments: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = environments
    stages: list[Tree] = []
    for files in STAGES:
        stages.append((stages[-1] if stages else {}) | {path: (0o644, text) for path, text in files.items()})
    build_series("toy", stages, tmp_path / "series")
    others = (two, tmp_path / "cache", tmp_path / "wheels")
    before, own = snapshot(*others), snapshot(one / "toy")
    series = ["toy", "--series", str(tmp_path / "series"), "--target", str(one)]
    for action in ("apply", "verify"):
        subprocess.run([*VIMECTL, "patch", action, *series], check=True)
        assert snapshot(*others) == before
    assert (one / "toy" / "both.py").read_bytes() == STAGES[2]["toy/both.py"]
    edited = one / "toy" / "both.py"
    edited.write_bytes(edited.read_bytes() + b"edited in place\n")  # no longer linked
    assert snapshot(*others) == before
    edited.write_bytes(STAGES[2]["toy/both.py"])
    subprocess.run([*VIMECTL, "patch", "revert", *series], check=True)
    assert snapshot(*others) == before
    assert {path: content for path, (*_, content) in snapshot(one / "toy").items()} == {
        path: content for path, (*_, content) in own.items()
    }
