"""Patch released packages: bring a stack's sources into the known state, verify it, and revert it."""

from typing import TYPE_CHECKING, Any

from vimectl.patches.command import PatchOutcome, change, recover_and_classify, status
from vimectl.patches.state import TargetStatus

if TYPE_CHECKING:
    from vimectl.patches.edits import diff_from_release, diff_of_edits

__all__ = [
    "PatchOutcome",
    "TargetStatus",
    "change",
    "diff_from_release",
    "diff_of_edits",
    "recover_and_classify",
    "status",
]


def __getattr__(name: str) -> Any:
    # Showing a difference needs the patch reader. Most commands find no difference and do not load it.
    if name in ("diff_from_release", "diff_of_edits"):
        from vimectl.patches import edits

        return getattr(edits, name)
    raise AttributeError(name)
