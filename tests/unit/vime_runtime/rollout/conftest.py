"""Real engines, each in its own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.runtime.engine_process import EngineProcess


@pytest.fixture(scope="module")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., EngineProcess]]:
    """Start engines that are stopped at the end of the module."""
    started = []

    def start(model: Path, *args: Any, **kwargs: Any) -> EngineProcess:
        started.append(EngineProcess(model, tmp_path_factory.mktemp("engine"), *args, **kwargs))
        return started[-1]

    yield start
    for engine in started:
        engine.stop()
