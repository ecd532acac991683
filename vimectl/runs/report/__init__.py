"""``report.html``: everything worth seeing of one run on one page that needs no network.

The page is made from the files of the run directory alone, so it can be made at any time: at the
end of a run however it ended, while it still goes on, and years later.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path

NAME = "report.html"


def write(run_dir: Path, out: Path | None = None) -> Path:
    """Make the page of a run and return where it is: ``out``, or ``report.html`` in the run directory.

    A reader sees the page that was there before or the new one, never half of it.

    Raises:
        OSError: the file cannot be written.
    """
    # Jinja takes as long to import as the rest of the tool: only whoever makes a page waits for it.
    from vimectl.runs.report.gather import gather
    from vimectl.runs.report.page import render

    target = out or run_dir / NAME
    _replace(target, render(gather(run_dir)))
    return target


def write_at_end(run_dir: Path) -> None:
    """Make the page of a run that has just ended. A page that fails is noted in ``logs/report.log``."""
    try:
        write(run_dir)
    except Exception:  # whatever is wrong with a page, it must not change how the run ended
        try:
            (run_dir / "logs" / "report.log").write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:
            return  # a full disk: `vimectl runs report` makes the page later


def _replace(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)  # like any other file of the run, not like a temporary one
            file.write(text)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
