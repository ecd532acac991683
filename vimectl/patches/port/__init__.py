"""Carry a series over to another release: three-way merges, with what upstream has taken left out."""

from vimectl.patches.port.command import Outcome, port

__all__ = ["Outcome", "port"]
