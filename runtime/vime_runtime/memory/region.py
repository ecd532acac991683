"""Memory for tensors that can be offloaded and restored while their addresses stay the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MemoryUsage:
    """Memory of a region as the kernel or the device driver counts it.

    Attributes:
        resident: bytes of memory, including pages of the offload file in the page cache. In a resident
            region these are all pages, also those not accessed since the last ``resume``.
        reclaimable: bytes that were freed and that the kernel reclaims under memory pressure.
    """

    resident: int
    reclaimable: int = 0

    @classmethod
    def total(cls, parts: Iterable[MemoryUsage]) -> MemoryUsage:
        """Return the sum over several regions."""
        parts = list(parts)
        return cls(
            sum(part.resident for part in parts),
            sum(part.reclaimable for part in parts),
        )


class OffloadableRegion(ABC):
    """Memory of tensors that is either resident or offloaded.

    ``pause`` and ``resume`` are named as in torch_memory_saver.

    Attributes:
        offloaded: True from ``pause`` to ``resume``.
    """

    def __init__(self) -> None:
        self.offloaded = False

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """Allocate tensors of the region's device in the region while the context is active.

        Raises:
            RuntimeError: the region is offloaded.
        """
        self._require(offloaded=False)
        with self._allocate():
            yield

    def allocating_zeros(self) -> AbstractContextManager[None]:
        """Allocate tensors that are zero at every ``pause``: ``register`` has to be called with them."""
        return self.allocating()

    def register(self, lasting: Mapping[str, Tensor], zeros: Iterable[Tensor]) -> None:  # noqa: B027
        """Name the tensors of the region, before the first ``pause``.

        Args:
            lasting: tensors that were created in ``allocating``, by name.
            zeros: those that were created in ``allocating_zeros``. Their memory is not saved; it is zero
                after ``resume``, possibly at other addresses.
        """

    def pause(self) -> None:
        """Save the contents elsewhere and free the memory.

        The tensors must not be used until ``resume``.

        Raises:
            RuntimeError: the region is offloaded already.
            OSError: the contents could not be saved; the region is still resident and unchanged.
        """
        self._require(offloaded=False)
        self._offload()
        self.offloaded = True

    def resume(self) -> None:
        """Allocate the memory again at the same addresses and restore the contents.

        Raises:
            RuntimeError: the region is not offloaded.
            OSError: the contents could not be read; the region is still offloaded.
            DeviceMemoryError: the device has too little free memory, or the contents are not the same.
        """
        self._require(offloaded=True)
        self._restore()
        self.offloaded = False

    @abstractmethod
    def memory_usage(self) -> MemoryUsage:
        """Measure the region."""

    @abstractmethod
    def _allocate(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def _offload(self) -> None: ...

    @abstractmethod
    def _restore(self) -> None: ...

    def _require(self, offloaded: bool) -> None:
        if self.offloaded is not offloaded:
            raise RuntimeError(f"the region is {'not ' if offloaded else ''}offloaded")
