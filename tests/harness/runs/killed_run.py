"""Leave the scratch directory of a run whose supervisor was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys
from pathlib import Path
from vimectl.util.scratch_directory import scratch_directory
with scratch_directory(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_scratch_directory(path: Path) -> None:
    """Create it in a process that is killed."""
    subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=False)
    assert path.is_dir()
