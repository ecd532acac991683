"""Sets of versions that belong together, as data, and the detection of the one that is installed."""
