"""Helpers that tests share: `from harness.area.module import name`.

Modules that a test starts as a process are found with ``script``; those that import other modules of this
package need ``TESTS`` on their PYTHONPATH.
"""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent
RUNTIME = REPOSITORY / "runtime"


def script(module: str) -> Path:
    """Return the file of a module of this package, ``area.name``, to start it as a process."""
    path = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    assert path.is_file(), path
    return path
