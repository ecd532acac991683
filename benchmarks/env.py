"""Compare pip and `vimectl env create` on the same lock, with empty and with filled caches.

Both make a virtual environment, check every digest, install without resolving, and compile. vimectl also
verifies the result and installs itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vimectl.stacks.catalog import lock_path

STACK = "cpu-0.32"


def main() -> None:
    """Print the seconds of both with each cache, and the ratio."""
    with tempfile.TemporaryDirectory(prefix="vimectl-benchmark-") as folder:
        caches = {"PIP_CACHE_DIR": "pip", "UV_CACHE_DIR": "uv", "XDG_CACHE_HOME": "user"}
        environment = os.environ | {name: f"{folder}/{cache}" for name, cache in caches.items()}
        for cache in ("empty", "filled"):
            pip = seconds(install_with_pip, Path(folder, f"pip-{cache}"), environment)
            uv = seconds(create_with_vimectl, Path(folder, f"vimectl-{cache}"), environment)
            print(
                f"{cache} cache: pip {pip:.1f} s, vimectl {uv:.1f} s, {pip / uv:.1f} times faster", flush=True
            )


def seconds(
    install: Callable[[Path, dict[str, str]], None], directory: Path, environment: dict[str, str]
) -> float:
    """Return the seconds that ``install`` takes."""
    began = time.perf_counter()
    install(directory, environment)
    return time.perf_counter() - began


def install_with_pip(directory: Path, environment: dict[str, str]) -> None:
    """Make an environment with pip alone."""
    run([sys.executable, "-m", "venv", str(directory)], environment)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    python = directory / "bin" / "python"
    run([str(python), "-m", "pip", "install", *options, "-r", str(lock_path(STACK))], environment)


def create_with_vimectl(directory: Path, environment: dict[str, str]) -> None:
    """Make an environment with `vimectl env create`."""
    run([sys.executable, "-m", "vimectl", "env", "create", str(directory), "--stack", STACK], environment)


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command without output. Raises CalledProcessError."""
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
