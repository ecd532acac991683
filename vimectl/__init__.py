"""Set up and run GRPO training on Ascend NPUs: pinned versions, source patches you can revert, a doctor, and
a launcher.
"""

__version__ = "0.1.0"
