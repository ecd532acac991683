"""Provide a local package index that pip is configured to use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.patches.index_server import Index, serving
from vimectl.patches.releases import pip_config
from vimectl.patches.releases.pip_config import PipConfig


@pytest.fixture
def other_index() -> Iterator[Index]:
    with serving() as index:
        yield index


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets what pip is configured to use."""
    return lambda **fields: monkeypatch.setattr(pip_config, "read", lambda: PipConfig(timeout=5.0, **fields))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configure: Callable[..., None]) -> Iterator[Index]:
    """Yield the index that pip is configured to use; the user's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", "/dev/null")
    monkeypatch.setattr("vimectl.patches.releases.web._PAUSE_SECONDS", 0.0)
    with serving() as made:
        configure(indexes=(made.url,))
        yield made
