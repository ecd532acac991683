"""Make small checkpoints and their problems for a first run."""
