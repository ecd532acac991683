"""Check that this machine can run a recipe, and name the command that fixes each problem."""

from vimectl.doctor.check import CheckResult
from vimectl.doctor.checks.recipe import INPUTS
from vimectl.doctor.runner import DoctorReport, run_checks

__all__ = ["INPUTS", "CheckResult", "DoctorReport", "run_checks"]
