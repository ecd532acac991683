"""``torch.npu``: the current device, its memory, and streams, which never wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from torch_npu import _books

_generator = torch.Generator()
default_generators = (_generator,)
_current = 0


def chip() -> int:
    """Return the physical chip of the current device."""
    return _books.visible()[_current]


def is_available() -> bool:
    return bool(_books.visible())


def is_initialized() -> bool:
    return True


def device_count() -> int:
    return len(_books.visible())


def current_device() -> int:
    return _current


def set_device(device: Any) -> None:
    index = _index(device)
    if index >= device_count():
        raise RuntimeError(f"Invalid device ID {index}: this process sees {device_count()} NPUs")
    if index:
        raise NotImplementedError("simulated: a process computes on the first NPU that it sees")
    _books.record("set_device", device=index, chip=chip())


def get_device_name(device: Any = None) -> str:
    return "Ascend910B1"


def get_device_properties(device: Any = None) -> SimpleNamespace:
    """Without a uuid, as on Ascend."""
    cores = {"cube_core_num": 24, "vector_core_num": 48}
    return SimpleNamespace(name=get_device_name(), total_memory=_books.TOTAL, major=0, minor=0, **cores)


def get_soc_version() -> int:
    """That of an Atlas A2."""
    return 220


def mem_get_info(device: Any = None) -> tuple[int, int]:
    return _books.free(chip()), _books.TOTAL


def memory_allocated(device: Any = None) -> int:
    return _memory().allocated


def memory_reserved(device: Any = None) -> int:
    return _books.held(chip())


def memory_stats(device: Any = None) -> dict[str, int]:
    return {
        "allocated_bytes.all.peak": _memory().peak,
        "allocated_bytes.all.current": memory_allocated(),
        "reserved_bytes.all.current": memory_reserved(),
    }


def reset_peak_memory_stats(device: Any = None) -> None:
    _memory().peak = memory_allocated()


def empty_cache() -> None:
    """Under a pluggable allocator the real one frees memory in use; this one exits at once."""
    _books.record("empty_cache", chip=chip())
    if any(block.region for block in list(_memory().blocks.values())):
        raise RuntimeError("empty_cache under a pluggable allocator: torch_npu frees blocks that are in use")
    _memory().empty_cache()


def synchronize(device: Any = None) -> None:
    _books.record("synchronize", chip=chip())


def manual_seed(seed: int) -> None:
    _generator.manual_seed(int(seed))


manual_seed_all = manual_seed


def get_rng_state(device: Any = None) -> torch.Tensor:
    return _generator.get_state()


class _Pools:
    """``torch.npu.memory``: pools whose memory a pluggable allocator maps and unmaps."""

    class NPUPluggableAllocator:
        def __init__(self, library: str | None, malloc: str, free: str) -> None:
            self._allocator = self

    class MemPool:
        def __init__(self, allocator: Any) -> None: ...

    @staticmethod
    @contextmanager
    def use_mem_pool(pool: Any, device: Any = None) -> Iterator[None]:
        before, _memory().pool = _memory().pool, True
        try:
            yield
        finally:
            _memory().pool = before


memory = _Pools


class Stream:
    """The only stream; every call is synchronous."""

    npu_stream = 0

    def synchronize(self) -> None:
        synchronize()


_stream = Stream()


def current_stream(device: Any = None) -> Stream:
    return _stream


default_stream = current_stream


def _index(device: Any) -> int:
    if isinstance(device, int):
        return device
    return torch.device(device).index or 0


def _is_in_bad_fork() -> bool:
    return False


def _lazy_init() -> None: ...


def _lazy_call(callback: Any, **settings: Any) -> None:
    callback()


def _memory() -> Any:
    from torch_npu._memory import MEMORY

    return MEMORY


# As the library does when it is loaded; changing the variable later has no effect.
ALLOCATOR_CONFIGURATION = os.environ.get("PYTORCH_NPU_ALLOC_CONF", "")
