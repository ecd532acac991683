"""Recipes: what a run is, resolved into one JSON file that the runtime reads."""
