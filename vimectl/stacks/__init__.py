"""What a coherent set of versions is, as data, and which one is installed."""

from typing import TYPE_CHECKING, Any

from vimectl.stacks.catalog import load, lock_path, names
from vimectl.stacks.detection import Detection, Difference, detect

if TYPE_CHECKING:
    from vimectl.stacks.schema import Stack

__all__ = ["Detection", "Difference", "Stack", "detect", "load", "lock_path", "names"]


def __getattr__(name: str) -> Any:
    # The schema takes longer to import than most commands take: only who names the class pays for it.
    if name == "Stack":
        from vimectl.stacks.schema import Stack

        return Stack
    raise AttributeError(name)
