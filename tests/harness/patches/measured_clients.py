"""Fork a process for each command read from stdin, limit its memory, and print its exit code and its peak.

Arguments: the folder for the cache and the output.
"""

from __future__ import annotations

import inspect
import json
import os
import resource
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from vimectl.cli import patch, patch_lint, run_cli
from vimectl.cli.tree import command_tree
from vimectl.patches import release_finder
from vimectl.patches.lint import linter
from vimectl.releases import download, pip_config, web
from vimectl.releases.pip_config import PipConfig

TIMEOUT = 60.0
MEMORY = 1024**3
# Smaller than for users; a test writes so much.
MAX_UNSTATED = 8 * 1024**2
LOADED = (patch, patch_lint, linter, command_tree(["patch", "lint"]))


def main() -> None:
    """Serve until stdin ends."""
    folder = Path(sys.argv[1])
    os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "NO_PROXY": "*", "NETRC": os.devnull}
    web._BACKOFF_SECONDS = 0.0
    for line in sys.stdin:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        print(json.dumps(supervise(json.loads(line), folder)), flush=True)


def supervise(command: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a command in a separate process."""
    (folder / "memory").write_text("0")
    child = os.fork()
    if child == 0:
        os._exit(run(command, folder))
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "memory": int((folder / "memory").read_text())}
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"code": None, "memory": 0}


def run(command: dict[str, Any], folder: Path) -> int:
    """Run a command, and write its output and its peak of memory into files."""
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    begin = peak()
    resource.setrlimit(resource.RLIMIT_AS, (virtual() + MEMORY, virtual() + MEMORY))
    pip_config.read = partial(PipConfig, index_url=command["url"], timeout=command["patience"] / 2)
    for name, value in (("WAIT_SECONDS", command["patience"]), ("MAX_UNSTATED_BYTES", MAX_UNSTATED)):
        for module in (download, sys.modules.get("vimectl.releases.allowance")):
            if hasattr(module, name):
                setattr(module, name, value)
    if command["parts"] and "compared" in inspect.signature(release_finder.find).parameters:
        release_finder.find = partial(release_finder.find, compared=True)
    code = run_cli(["patch", "lint", command["patch"], "--against", "toy==1.0"])
    sys.stdout.flush()
    sys.stderr.flush()
    (folder / "memory").write_text(str(peak() - begin))
    return code


def peak() -> int:
    """Return the largest resident memory of this process in bytes."""
    return status("VmHWM")


def virtual() -> int:
    """Return the address space of this process in bytes."""
    return status("VmSize")


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
