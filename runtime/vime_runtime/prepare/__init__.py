"""Makes a small checkpoint and its problems, so that a first run needs nothing from anywhere."""
