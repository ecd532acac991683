"""Patch released packages: bring a stack's sources into the known state, verify it, and revert it."""
