"""Patches for released packages: put a stack's sources into the known state, prove it, take it back."""

from vimectl.patching.command import Outcome, change, recovered, status
from vimectl.patching.difference import edits, from_release
from vimectl.patching.state import TargetStatus

__all__ = ["Outcome", "TargetStatus", "change", "edits", "from_release", "recovered", "status"]
