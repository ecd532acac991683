"""Every tracker for real: its package from the index, without a network, read back with its own reader."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY, RUNTIME, TESTS, script
from harness.needs import unavailable
from harness.trackers.log_steps import SECRET
from vimectl.util.toml import read_toml

pytestmark = [pytest.mark.exhaustive, pytest.mark.needs("network")]

TRACKERS = ("wandb", "mlflow", "swanlab", "trackio")
FINISHED = {"wandb": [1, 0], "mlflow": ["FINISHED"], "swanlab": [2, 1], "trackio": []}


@pytest.fixture(scope="session")
def all_trackers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the extras of all trackers on top of this one: 200 MB."""
    return make_environment(tmp_path_factory.mktemp("trackers"), *TRACKERS)


def make_environment(folder: Path, *trackers: str) -> Path:
    """Create an environment with what this one has and the extras of these trackers; return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "stack.pth").write_text(sysconfig.get_path("purelib") + "\n")
    extras = read_toml(REPOSITORY / "pyproject.toml")["project"]["optional-dependencies"]
    wanted = [requirement for name in trackers for requirement in extras[name]]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", *wanted]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        unavailable(f"the packages of the trackers cannot be installed: {done.stderr[-2000:]}")
    return python


class Session:
    """Attempts of one run with a tracker, each a process without a network."""

    def __init__(self, python: Path, run_dir: Path, **environment: str) -> None:
        self._python = python
        self._run_dir = run_dir
        path = os.pathsep.join(map(str, (TESTS, RUNTIME, REPOSITORY)))
        modes = {"WANDB_MODE": "offline", "SWANLAB_MODE": "offline"}
        home = {"HOME": str(run_dir.parent), "PYTHONPATH": path}
        self._environment = os.environ | home | modes | environment
        (run_dir / "trackers").mkdir(parents=True)

    def log(self, tracker: str, how: str, *steps: int) -> Any:
        return self._run("log_steps", tracker, str(self._run_dir), how, *map(str, steps))

    def read(self, tracker: str) -> Any:
        folder = self._run_dir / "trackers" / tracker
        self._environment["TRACKIO_DIR"] = str(folder)
        return self._run("read_back", tracker, str(folder))

    def _run(self, program: str, *arguments: str) -> Any:
        command = [str(self._python), str(script(f"trackers.{program}")), *arguments]
        done = subprocess.run(
            [*without_network(), *command],
            env=self._environment,
            cwd=self._run_dir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def without_network() -> list[str]:
    """Return the command that starts a process in an empty network namespace, where that is allowed."""
    command = ["unshare", "--map-root-user", "--net"]
    allowed = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True)
    return command if allowed and allowed.returncode == 0 else []


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_run_and_its_continuation_are_read_back(tracker: str, all_trackers: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    session = Session(all_trackers, home / "run-7")
    assert session.log(tracker, "failed", 0, 1, 2, 3, 4) == {"warnings": []}
    assert session.log(tracker, "done", 3, 4, 5) == {"warnings": []}
    found = session.read(tracker)
    # The value that was written last for a step is that of the later attempt.
    points = {0: 0.0, 1: 0.125, 2: 0.25, 3: 1.375, 4: 1.5, 5: 1.625}
    assert dict(found["points"]) == points
    assert found["states"] == FINISHED[tracker]
    assert found["temperature"] == 1.0
    (run,) = found["runs"]  # one, continued
    assert "run-7" in (run if isinstance(run, list) else [run])
    files = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    kept = [path for path in files if path.suffix in (".wandb", ".db", ".swanlab")]
    assert kept
    assert all(path.is_relative_to(home / "run-7" / "trackers" / tracker) for path in kept)


@pytest.mark.parametrize(("tracker", "variable"), [("wandb", "WANDB_MODE"), ("swanlab", "SWANLAB_MODE")])
def test_without_a_login_the_run_does_not_start_and_nothing_is_asked(
    tracker: str, variable: str, all_trackers: Path, tmp_path: Path
) -> None:
    session = Session(all_trackers, tmp_path / "run", **{variable: "online"})
    assert "API key" in session.log(tracker, "done", 1)["error"]
