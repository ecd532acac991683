"""Lint patch files."""
