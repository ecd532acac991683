"""Write ``report.html``: curves, events, responses and settings of a run on a page that needs no network.

The page is made from the files of the run directory alone, so it can be made at any time: at the end of a run
however it ended, while it runs, and later. A file that is missing or damaged counts as empty.
"""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path

from vimectl.runs.run_directory import RunDirectory
from vimectl.util.output_file import write_output


def write(run_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a run to ``out``, or to ``report.html`` in the run directory, and return its path.

    The page is replaced in one step: a reader sees the earlier one or the new one.

    Raises:
        UsageError: as ``write_output`` raises it.
    """
    # Jinja takes as long to import as the rest of the tool: import it only to make a page.
    from vimectl.runs.report.page import render

    run = RunDirectory(run_dir)
    target = out or run.files.report
    write_output(target, render(run).encode())
    return target


def write_at_end(run_dir: Path) -> None:
    """Write the page of a run that has just ended. If that fails, write the reason to ``logs/report.log``."""
    try:
        write(run_dir)
    except Exception:  # an error of the page must not change how the run ended
        log = RunDirectory(run_dir).files.logs / "report.log"
        with contextlib.suppress(OSError):  # a full disk: `vimectl runs report` makes the page later
            log.write_text(traceback.format_exc(), encoding="utf-8")
