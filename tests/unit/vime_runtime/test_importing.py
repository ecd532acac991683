"""The collector of cycles is off while much is imported, here and in spawned processes, and on afterwards."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from vime_runtime import importing


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_it_is_off_inside_and_never_looks_at_what_came_inside() -> None:
    frozen = gc.get_freeze_count()
    with importing.uncollected():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_it_is_on_again_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), importing.uncollected():
        import vime_runtime.nothing  # noqa: F401
    assert gc.isenabled()


def test_a_spawned_process_begins_without_it() -> None:
    main = sys.modules["__main__"].__spec__
    with importing.children_uncollected():
        assert spawned_with_collector() is False
    assert sys.modules["__main__"].__spec__ is main
    assert spawned_with_collector() is True


def spawned_with_collector() -> bool:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(gc.isenabled).result(timeout=60)
