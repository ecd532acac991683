"""Make small checkpoints and their problems for a first run."""

from collections.abc import Callable

# Called with the step and a line for the user.
ReportProgress = Callable[[int, str], None]
