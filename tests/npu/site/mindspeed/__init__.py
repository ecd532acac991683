"""Stands in for MindSpeed, of which the package index has no release."""
