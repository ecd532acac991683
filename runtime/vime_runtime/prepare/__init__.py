"""Makes small checkpoints and their problems, so that a first run needs no download."""
