"""Stands in for the runtime: same command line, same files, no model; misbehaves as it is told."""
