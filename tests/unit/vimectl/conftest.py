"""Provide an index of releases, checkpoints with zero weights, and launches of a fake runtime."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.model_families import FAMILIES

from harness import REPOSITORY, TESTS, script
from harness.patches.index_server import Index, serving
from harness.runs.wait import wait_until
from harness.terminal import start_shell
from vimectl.releases import pip_config
from vimectl.releases.pip_config import PipConfig

FAKE_RUNTIME = Path(__file__).parent / "runs" / "fake_runtime"

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 8,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}

Header = dict[str, dict[str, Any]]


def header_of(config: dict[str, Any], dtype: str = "BF16") -> Header:
    """Return a safetensors header for the model that ``config`` describes, two bytes per element."""
    family = FAMILIES[config["model_type"]]
    header, end = {}, 0
    for name, shape in family.tensors(family.shape(config, "config.json")).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return header


def write_safetensors(path: Path, header: Header) -> None:
    """Write a file with this header and zeros as weights."""
    text = json.dumps(header).encode()
    size = max(entry["data_offsets"][1] for entry in header.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a model directory; ``change`` may damage the header, keywords change config.json."""

    def write(change: Callable[[Header], object] = lambda header: None, **config: Any) -> Path:
        directory = tmp_path / "model"
        directory.mkdir()
        described = CONFIG | config
        (directory / "config.json").write_text(json.dumps(described))
        (directory / "tokenizer.json").write_text("{}")
        header = header_of(described)
        change(header)
        write_safetensors(directory / "model.safetensors", header)
        return directory

    return write


class LaunchedRun:
    """A launch of the fake runtime in a separate process."""

    def __init__(
        self,
        tmp_path: Path,
        model: Path,
        *assignments: str,
        terminal: int | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """Assignments whose key has a dot are for the recipe, others for the environment of the runtime.

        ``--detach`` instead of an assignment launches a detached run. With a terminal, ``process`` is a shell
        in it, see ``start_shell``. ``wrapper`` is a command that executes the launch.
        """
        self.run_dir = tmp_path / "run"
        self.cache = tmp_path / "cache"
        self.state = tmp_path / "state"
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (FAKE_RUNTIME, REPOSITORY, TESTS))),
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_STATE_HOME": str(self.state),
            "FAKE_MODEL": str(model),
        }
        assignments = tuple(
            a if "." in a.partition("=")[0] or a == "--detach" else f"env.{a}" for a in assignments
        )
        launch = script("runs.launch_recipe")
        command = [*wrapper, sys.executable, launch, self.run_dir, "qwen3-tiny-tp2", *assignments]
        if terminal is None:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=pipe, stderr=pipe, text=True
            )
        else:
            self.process = start_shell(terminal, command, self.environment)

    @property
    def scratch_dir(self) -> Path:
        return Path(self.run_dir.with_suffix(".scratch").read_text())

    @property
    def summary(self) -> dict[str, object]:
        return json.loads((self.run_dir / "summary.json").read_text())

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that the run has written so far."""
        path = self.run_dir / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pid(self, role: str) -> int:
        """Wait for a process of this role and return its id; of several starts of the runtime the last."""
        found = wait_until(lambda: [event["pid"] for event in self.events if event.get("role") == role])
        return found[-1]

    @property
    def supervisor(self) -> int:
        return json.loads((self.run_dir / "supervisor.json").read_text())["pid"]

    @property
    def launcher(self) -> int:
        """The launcher; that of a detached run is not ``process``."""
        return json.loads((self.run_dir / "launcher.json").read_text())["pid"]

    def wait(self, seconds: float = 120) -> tuple[int, str, str]:
        """Wait for the launcher to exit; return its exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


@pytest.fixture
def launch(tmp_path: Path, write_model: Callable[..., Path]) -> Iterator[Callable[..., LaunchedRun]]:
    """Launch the fake runtime with some assignments."""
    runs = []

    def start(*assignments: str, folder: Path = tmp_path, **options: Any) -> LaunchedRun:
        runs.append(LaunchedRun(folder, write_model(), *assignments, **options))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.communicate()
        if (run.run_dir / "supervisor.json").exists() and not (run.run_dir / "summary.json").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.supervisor, signal.SIGTERM)  # of a detached run that a failed test has left


@pytest.fixture
def other_index() -> Iterator[Index]:
    with serving() as index:
        yield index


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets what pip is configured to use."""
    return lambda **fields: monkeypatch.setattr(pip_config, "read", lambda: PipConfig(timeout=5.0, **fields))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configure: Callable[..., None]) -> Iterator[Index]:
    """Yield the index that pip is configured to use; the user's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", "/dev/null")
    monkeypatch.setattr("vimectl.releases.web._BACKOFF_SECONDS", 0.0)
    with serving() as made:
        configure(index_url=made.url)
        yield made
