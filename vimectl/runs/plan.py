"""What a run will be, before anything is started: ``--dry-run`` prints it and the launch executes it."""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.recipes.environment import ROLES, Role, Setting, environment
from vimectl.recipes.resolve import Resolved
from vimectl.runs import resume as resuming
from vimectl.util import ray_address
from vimectl.util.host import Host

# An AF_UNIX path has 107 bytes (unix(7)), and Ray puts about 70 below its folder:
# ray/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store.
LONGEST_SCRATCH_DIR = 36


@dataclass(frozen=True)
class Plan:
    """One run: the recipe, its folders and the environment of every process. Making it changes nothing."""

    resolved: Resolved
    run_dir: Path
    scratch_dir: Path
    settings: dict[Role, dict[str, Setting]]
    address: str | None = None  # "host:port" of an existing Ray cluster; None: one of the run's own
    resume: bool = False

    @property
    def command(self) -> list[str]:
        """What is started: the runtime, with one file."""
        return runtime_command(self.run_dir)

    @property
    def environment(self) -> dict[Role, dict[str, str]]:
        """The values alone, by role."""
        return {
            role: {name: setting.value for name, setting in settings.items()}
            for role, settings in self.settings.items()
        }

    def document(self) -> dict[str, Any]:
        """The content of ``resolved.json``, all that crosses to the runtime."""
        return {
            "schema": "vimectl.run/1",
            "recipe": self.resolved.recipe.model_dump(mode="json"),
            "overrides": list(self.resolved.assignments),
            "mode": self.resolved.mode,
            "steps": self.resolved.steps,
            "settings_sha256": resuming.fingerprint(self.resolved.recipe),
            "run_dir": str(self.run_dir),
            "scratch_dir": str(self.scratch_dir),
            "address": self.address,
            "environment": self.environment,
            "required": {
                role: {name: asdict(s.required) for name, s in settings.items() if s.required}
                for role, settings in self.settings.items()
            },
        }

    def placement(self) -> list[dict[str, int]]:
        """One entry a device: its node, the trainer rank and replica, the engine and its rank."""
        cluster, train, rollout = (
            self.resolved.recipe.cluster,
            self.resolved.recipe.train,
            self.resolved.recipe.rollout,
        )
        return [
            {
                "node": device // cluster.devices_per_node,
                "device": device % cluster.devices_per_node,
                "train_rank": device,
                "train_replica": device // train.tensor_parallel,
                "engine": device // rollout.tensor_parallel,
                "engine_rank": device % rollout.tensor_parallel,
            }
            for device in range(cluster.devices)
        ]


def runtime_command(run_dir: Path) -> list[str]:
    """What is started for a run that has its files."""
    return [sys.executable, "-m", "vime_runtime", str(run_dir / "resolved.json")]


def make(
    resolved: Resolved,
    host: Host,
    run_dir: Path | None = None,
    address: str | None = None,
    resume: bool = False,
) -> Plan:
    """Decide folders, cluster and environments of a run.

    Args:
        address: an existing Ray cluster, as ``ray_address.resolve`` takes it; None: a private one.

    Raises:
        UsageError: the run directory holds something already, or, to ``resume``, does not hold a run that can
            be gone on with; the address is none, or several nodes are
            asked for without one.
    """
    if resume:
        resuming.check(run_dir, resolved.recipe, resolved.steps)
    if address is not None:
        address = ray_address.resolve(address, host)
    elif resolved.recipe.cluster.nodes > 1:
        raise UsageError(
            f"'cluster.nodes': {resolved.recipe.cluster.nodes}, but a cluster of the run's own has one node",
            "start Ray on every node, on one of them with `ray start --head`, and give its --address",
        )
    name = f"{resolved.recipe.recipe.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    run_dir = (run_dir or Path("runs") / name).absolute()
    if not resume and run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UsageError(f"the run directory {run_dir} is not empty", "name another with --run-dir")
    scratch_dir = _scratch_dir()
    settings = {
        role: environment(resolved.recipe, role, host, scratch_dir, private_cluster=address is None)
        for role in ROLES
    }
    return Plan(resolved, run_dir, scratch_dir, settings, address, resume)


def write(plan: Plan, doctor: dict[str, Any]) -> None:
    """Create the run directory with the files that say what was asked for and on what.

    Raises:
        UsageError: to resume, when the inputs are not those that the run began with.
    """
    if plan.resume:
        resuming.check_inputs(plan.run_dir, plan.resolved.recipe)
        (plan.run_dir / "summary.json").unlink(missing_ok=True)  # it is of the end that was not one
    for folder in (plan.run_dir / "logs", plan.run_dir / "checkpoints"):
        folder.mkdir(parents=True, exist_ok=plan.resume)
    (plan.run_dir / "recipe.toml").write_bytes(plan.resolved.source.read_bytes())
    reasons = {role: {n: asdict(s) for n, s in settings.items()} for role, settings in plan.settings.items()}
    for name, document in (
        ("resolved.json", plan.document()),
        ("environment.json", reasons),
        ("doctor.json", doctor),
        (resuming.INPUTS_FILE, resuming.inputs(plan.resolved.recipe)),
    ):
        text = json.dumps(document, indent=2, default=str) + "\n"
        (plan.run_dir / name).write_text(text, encoding="utf-8")


def _scratch_dir() -> Path:
    """A name nobody else has, short enough for the sockets below it."""
    name = f"vime-{secrets.token_hex(4)}"
    wanted = Path(tempfile.gettempdir()) / name
    return wanted if len(str(wanted)) <= LONGEST_SCRATCH_DIR else Path("/tmp") / name
