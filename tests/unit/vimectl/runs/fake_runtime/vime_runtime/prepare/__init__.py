"""Stands in for the preparation: copies a checkpoint that the test made."""
