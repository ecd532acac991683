"""What a coherent set of versions is, as data, and which one is installed."""

from vimectl.stack.catalog import load, lock_path, names
from vimectl.stack.detection import Detection, Difference, detect
from vimectl.stack.schema import Stack

__all__ = ["Detection", "Difference", "Stack", "detect", "load", "lock_path", "names"]
