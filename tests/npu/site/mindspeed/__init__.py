"""Simulate MindSpeed, which has no release on the package index."""
