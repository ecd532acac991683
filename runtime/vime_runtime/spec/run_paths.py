"""The files of a run directory. Their names are stable for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RUN_FILE = "resolved.json"
SUMMARY_FILE = "summary.json"
# Name of a run's private temporary folder: this prefix and eight hexadecimal digits.
SCRATCH_PREFIX = "vime-"


@dataclass(frozen=True)
class RunPaths:
    """Paths below one run directory."""

    run_dir: Path

    @property
    def run_file(self) -> Path:
        """``RunConfig`` as JSON. A directory without it is not a run directory."""
        return self.run_dir / RUN_FILE

    @property
    def recipe(self) -> Path:
        """The recipe file as the user wrote it."""
        return self.run_dir / "recipe.toml"

    @property
    def environment(self) -> Path:
        """Every variable of every process, with the reason."""
        return self.run_dir / "environment.json"

    @property
    def doctor(self) -> Path:
        """The doctor's report before the start."""
        return self.run_dir / "doctor.json"

    @property
    def inputs(self) -> Path:
        """Digests of model and data, compared by --resume."""
        return self.run_dir / "inputs.json"

    @property
    def launcher(self) -> Path:
        """Identity of the launcher process."""
        return self.run_dir / "launcher.json"

    @property
    def supervisor(self) -> Path:
        """Identity of the supervisor process."""
        return self.run_dir / "supervisor.json"

    @property
    def events(self) -> Path:
        """One JSON object per event, see ``events``."""
        return self.run_dir / "events.jsonl"

    @property
    def metrics(self) -> Path:
        """One JSON object per step, see ``metrics``."""
        return self.run_dir / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """How the run ended."""
        return self.run_dir / SUMMARY_FILE

    @property
    def report(self) -> Path:
        """The report page."""
        return self.run_dir / "report.html"

    @property
    def rollouts(self) -> Path:
        """Every response, if ``watch.rollouts`` is on."""
        return self.run_dir / "rollouts.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files, if ``watch.tensorboard`` is on."""
        return self.run_dir / "tensorboard"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.run_dir / "logs"

    @property
    def driver_log(self) -> Path:
        """Output of the runtime driver."""
        return self.logs / "driver.log"

    @property
    def checkpoints(self) -> Path:
        """Training states (``step-000010``), ``best`` and ``final`` models."""
        return self.run_dir / "checkpoints"

    @property
    def final_model(self) -> Path:
        """The trained model as a Hugging Face directory."""
        return self.checkpoints / "final"
