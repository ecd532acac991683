"""Show the progress of downloads on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vimectl.util.phase_progress import PhaseProgress, show_phases

if TYPE_CHECKING:
    from vimectl.patches.releases.download import DownloadProgress

_MIB = 1024**2


@contextmanager
def download_progress() -> Iterator[DownloadProgress]:
    """Yield a callback that shows the progress of downloads on stderr."""
    with show_phases() as report:

        def show(name: str, done: int, total: int | None) -> None:
            phase = f"downloading {name}"
            if total is None:
                report(PhaseProgress(phase, bytes=done))
            else:
                report(PhaseProgress(phase, done // _MIB, total // _MIB, "MiB"))

        yield show
