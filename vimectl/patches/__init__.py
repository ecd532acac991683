"""Patch released packages: bring a stack's sources into the known state, verify it, and revert it."""

from vimectl.patches.command import PatchOutcome, change, recover_and_classify, status
from vimectl.patches.state import TargetStatus

__all__ = ["PatchOutcome", "TargetStatus", "change", "recover_and_classify", "status"]
