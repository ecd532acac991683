"""Patches for released packages: put a stack's sources into the known state, prove it, take it back."""

from typing import TYPE_CHECKING, Any

from vimectl.patches.command import Outcome, change, recovered, status
from vimectl.patches.state import TargetStatus

if TYPE_CHECKING:
    from vimectl.patches.difference import edits, from_release

__all__ = ["Outcome", "TargetStatus", "change", "edits", "from_release", "recovered", "status"]


def __getattr__(name: str) -> Any:
    # To show a difference needs the reader of patches; to tell that there is none does not.
    if name in ("edits", "from_release"):
        from vimectl.patches import difference

        return getattr(difference, name)
    raise AttributeError(name)
