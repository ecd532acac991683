"""The log files of a run: which of them tells what went wrong, and Ray's own, kept when something did."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

TAIL_LINES = 15
# Ray's files are short until something fails for ever.
LONGEST_RAY_LOG = 1024**2

# Which log is meant by words in a reason.
NAMED = (
    (re.compile(r"\btrainer (?:rank )?(\d+)\b", re.IGNORECASE), "trainer-{}.log"),
    (re.compile(r"\bengine (\d+)\b", re.IGNORECASE), "engine-{}.log"),
    (re.compile(r"\braylet\b", re.IGNORECASE), "ray/raylet.out"),
    (re.compile(r"\bgcs\b", re.IGNORECASE), "ray/gcs_server.out"),
)
# Workers are counted over all engines, their logs within each engine.
WORKER = re.compile(r"\bengine worker (\d+)\b", re.IGNORECASE)
WORKER_LOG = re.compile(r"engine-(\d+)-worker-(\d+)\.log")
DRIVER = "driver.log"


def ending(run_dir: Path, reason: str) -> str:
    """The last lines of the log that matters, and where the rest is.

    It is the log of the process that ``reason`` names; the driver's when it names none, or one that has
    written nothing.
    """
    folder = run_dir / "logs"
    log = next((path for path in _named(folder, reason) if _written(path)), folder / DRIVER)
    if not _written(log):
        return f"no process has written anything to {folder}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([*lines[-TAIL_LINES:], f"the whole log: {log}"])


def keep_ray(scratch_dir: Path, run_dir: Path) -> None:
    """Copy the ends of the logs of Ray's daemons and of actors that never came up to ``logs/ray/``.

    They lie in the scratch folder, which goes with the run. On a full disk there are none.
    """
    kept = run_dir / "logs" / "ray"
    for log in sorted((scratch_dir / "ray" / "session_latest" / "logs").glob("*.[oe][ur][tr]")):
        if not _written(log):
            continue
        try:
            kept.mkdir(exist_ok=True)
            with log.open("rb") as source, (kept / log.name).open("wb") as target:
                source.seek(max(0, os.fstat(source.fileno()).st_size - LONGEST_RAY_LOG))
                shutil.copyfileobj(source, target)
        except OSError:
            return


def _named(folder: Path, reason: str) -> list[Path]:
    if worker := WORKER.search(reason):
        return _worker_logs(folder)[int(worker[1]) :][:1]
    found = ((pattern.search(reason), name) for pattern, name in NAMED)
    return [folder / name.format(*match.groups()) for match, name in found if match]


def _worker_logs(folder: Path) -> list[Path]:
    """By engine, then by rank."""
    found = {path: WORKER_LOG.fullmatch(path.name) for path in folder.iterdir()}
    places = {path: (int(match[1]), int(match[2])) for path, match in found.items() if match}
    return sorted(places, key=places.__getitem__)


def _written(log: Path) -> bool:
    return log.is_file() and log.stat().st_size > 0
