"""Can this machine run the recipe: what was found, what is needed, why, and the command that mends it."""

from vimectl.doctor.finding import Finding
from vimectl.doctor.inputs import INPUTS
from vimectl.doctor.report import Report, run_checks

__all__ = ["INPUTS", "Finding", "Report", "run_checks"]
