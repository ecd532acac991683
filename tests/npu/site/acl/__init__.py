"""Simulate CANN's Python interface."""

from acl import rt

__all__ = ["rt"]
