"""The training region: memory that is given back while the other side works, and returns where it was."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self


@dataclass(frozen=True)
class Residency:
    """What the kernel, or the device's driver, says of a region, in bytes.

    ``mapped`` is the address space it takes, ``resident`` the memory behind it, the page cache of a
    backing file included. ``spare`` is memory that is still there but was given back: the kernel takes it
    when somebody needs it. Of a region that is awake all of it counts as resident, used again or not.
    """

    mapped: int
    resident: int
    spare: int = 0

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """The sum over several regions."""
        parts = list(parts)
        return cls(
            sum(part.mapped for part in parts),
            sum(part.resident for part in parts),
            sum(part.spare for part in parts),
        )


class TrainingRegion(Protocol):
    """Memory for tensors that can be given back and taken again, with addresses and contents unchanged."""

    @property
    def paused(self) -> bool:
        """Whether the memory is given back at the moment."""
        ...

    def allocating(self) -> AbstractContextManager[None]:
        """Tensors created on the region's device inside live in the region. May be nested.

        Raises:
            RuntimeError: the region is paused.
        """
        ...

    def pause(self) -> None:
        """Keep the contents elsewhere and give the memory back to the kernel or the driver.

        The tensors must not be touched until ``resume``.

        Raises:
            RuntimeError: it is paused already.
        """
        ...

    def resume(self) -> None:
        """Take the memory again: same addresses, same bytes.

        Raises:
            RuntimeError: it is not paused.
        """
        ...

    def residency(self) -> Residency:
        """Measure the region now."""
        ...
