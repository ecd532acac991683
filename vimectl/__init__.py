"""vimectl: reinforcement learning on Ascend NPUs as a declared, checked, reversible state."""

__version__ = "0.1.0"
