from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from vime_runtime.gc_pause import children_gc_paused, gc_paused


@pytest.fixture(autouse=True)
def _unfreeze() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_objects_created_in_the_block_are_never_collected() -> None:
    frozen = gc.get_freeze_count()
    with gc_paused():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_a_failing_import_enables_the_collector_again() -> None:
    with pytest.raises(ImportError), gc_paused():
        import vime_runtime.nothing  # noqa: F401
    assert gc.isenabled()


def test_a_spawned_process_starts_without_the_collector() -> None:
    main = sys.modules["__main__"].__spec__
    with children_gc_paused():
        assert gc_enabled_in_a_spawned_process() is False
    assert sys.modules["__main__"].__spec__ is main
    assert gc_enabled_in_a_spawned_process() is True


def gc_enabled_in_a_spawned_process() -> bool:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(gc.isenabled).result(timeout=60)
