"""The files of a run directory. Their names are stable for scripts."""

from __future__ import annotations

from pathlib import Path

RUN_FILE = "resolved.json"
# How many problems each set has, in the folder of the problems.
COUNTS_FILE = "counts.json"
# Where runs are by default: in the current directory.
RUNS = Path("runs")
# Name of a run's private temporary folder: this prefix and eight hexadecimal digits.
SCRATCH_PREFIX = "vime-"


class RunPaths:
    """Paths below one run directory."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        # ``RunConfig`` as JSON. A directory without it is not a run directory.
        self.run_file = run_dir / RUN_FILE
        # The recipe file as the user wrote it.
        self.recipe = run_dir / "recipe.toml"
        # Every variable of every process, with the reason.
        self.environment = run_dir / "environment.json"
        # The doctor's report before the start.
        self.doctor = run_dir / "doctor.json"
        # Digests of model and data, compared by --resume.
        self.inputs = run_dir / "inputs.json"
        # Identities of the launcher process and of the supervisor process.
        self.launcher = run_dir / "launcher.json"
        self.supervisor = run_dir / "supervisor.json"
        # One JSON object per event, see ``events``.
        self.events = run_dir / "events.jsonl"
        # One JSON object per step, see ``metrics``.
        self.metrics = run_dir / "metrics.jsonl"
        # How the run ended.
        self.summary = run_dir / "summary.json"
        # The report page.
        self.report = run_dir / "report.html"
        # The problems of the run as the engine gets them, one file for each set.
        self.problems = run_dir / "problems"
        # The answers of every evaluation, with their scores.
        self.evaluations = run_dir / "evaluations.jsonl"
        # Every response, if ``watch.rollouts`` is on.
        self.rollouts = run_dir / "rollouts.jsonl"
        # Files of ``watch.trackers``, in a folder for each.
        self.trackers = run_dir / "trackers"
        # One log file per process, and the output of the runtime driver.
        self.logs = run_dir / "logs"
        self.driver_log = self.logs / "driver.log"
        # What the supervisor, and the launcher of a detached run, write to stderr.
        self.supervisor_log = self.logs / "supervisor.log"
        # Training states (``step-000010``), ``best`` and ``final`` models.
        self.checkpoints = run_dir / "checkpoints"
        # The trained model as a Hugging Face directory.
        self.final_model = self.checkpoints / "final"
