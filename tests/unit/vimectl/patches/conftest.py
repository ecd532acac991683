"""Provide toy packages with their series, made by git."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.git import git
from harness.patches.toy_packages import STAGES, Tree, build_series, install, lay, rich, unpack
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus, classify
from vimectl.patches.target import PatchTarget, find_at


@pytest.fixture(scope="session")
def toy_series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Return the series of the toy package."""
    stages: list[Tree] = []
    for files in STAGES:
        stages.append(
            (stages[-1] if stages else {}) | {path: (0o644, content) for path, content in files.items()}
        )
    return build_series("toy", stages, tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="session")
def rich_series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Series]:
    """Return by package two series with every kind of change."""
    return {name: build_series(name, rich(name), tmp_path_factory.mktemp(name)) for name in ("one", "two")}


@pytest.fixture(autouse=True)
def user_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state folder of the user, of this test alone."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def memory() -> Iterator[Path]:
    """Yield a directory in memory if possible: on a disk thousands of files take minutes."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="vimectl-test-", dir=where) as directory:
        yield Path(directory).resolve()


@pytest.fixture
def rich_stack(memory: Path) -> list[Path]:
    """Return the directories of both rich packages, one installed, one in a git checkout."""
    site, checkout = memory / "site-packages", memory / "checkout"
    install(site, "one", rich("one")[0])
    lay(checkout, rich("two")[0])
    (checkout / "PKG-INFO").write_text("Name: two\nVersion: 1.0\n")
    git(checkout, "init", "-q", "--template=")
    return [site, checkout]


@pytest.fixture
def classify_all(rich_series: dict[str, Series]) -> Callable[[list[Path]], list[TargetStatus]]:
    """Return a function that classifies the rich packages in their two directories."""

    def classify_rich(places: list[Path]) -> list[TargetStatus]:
        found = []
        for place, name in zip(places, ("one", "two"), strict=True):
            target = find_at(place, name, name)
            found.append(classify(target, rich_series[name]))
        return found

    return classify_rich


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return unpack(tmp_path / "site-packages")


@pytest.fixture
def target(location: Path) -> PatchTarget:
    found = find_at(location, "toy", "toy")
    return found
