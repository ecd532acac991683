"""Stand in for ``vllm_ascend.vllm_ascend_C``: the allocator of sleep mode, and six operators.

Read at vllm-project/vllm-ascend, tag v0.22.1rc1, csrc. The allocator is ``tests/npu/cann/camem.cpp``, called
through ctypes; the extension is written against Python's headers (csrc/camem_allocator.cpp:101-337).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from vllm_ascend_parts import operators

Handle = tuple[int, int, int, int]  # device, bytes, address, address of the physical memory's handle

_LIBRARY = ctypes.PyDLL("vllm_ascend_C.so")
_NUMBER = ctypes.c_ulonglong
_OnMalloc = ctypes.PYFUNCTYPE(ctypes.c_int, _NUMBER, _NUMBER, _NUMBER, _NUMBER)
_OnFree = ctypes.PYFUNCTYPE(ctypes.c_int, _NUMBER, ctypes.POINTER(_NUMBER * 4))
_callbacks: list[object] = []


def init_module(python_malloc: Callable[[Handle], None], python_free: Callable[[int], Handle]) -> None:
    """Set the functions to call for each allocation and each free."""

    @_OnMalloc
    def on_malloc(device: int, nbytes: int, address: int, physical: int) -> int:
        python_malloc((device, nbytes, address, physical))
        return 1  # 0 if it raised, which ctypes prints

    @_OnFree
    def on_free(address: int, handle: ctypes._Pointer[ctypes.Array[ctypes.c_ulonglong]]) -> int:
        handle.contents[:] = python_free(address)
        return 1

    _callbacks[:] = [on_malloc, on_free]  # the library keeps no references
    _LIBRARY.camem_init(on_malloc, on_free)


def python_create_and_map(device: int, nbytes: int, address: int, physical: int) -> None:
    """Allocate physical memory and map it at an address. A failure ends the process."""
    _LIBRARY.camem_create_and_map(*map(_NUMBER, (device, nbytes, address, physical)))


def python_unmap_and_release(device: int, nbytes: int, address: int, physical: int) -> None:
    """Unmap the memory at an address, which stays reserved, and free it. A failure ends the process."""
    _LIBRARY.camem_unmap_and_release(*map(_NUMBER, (address, physical)))


operators.define()
