"""The log files of a run: show the end of the one that explains a failure, and keep Ray's own."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from vime_runtime.spec.run_paths import RunPaths

TAIL_LINES = 15
# Ray's log files are short unless something fails again and again.
RAY_LOG_BYTES = 1024**2

# The log of the process that a reason names.
LOG_PATTERNS = (
    (re.compile(r"\btrainer (?:rank )?(\d+)\b", re.IGNORECASE), "trainer-{}.log"),
    (re.compile(r"\bengine (\d+)\b", re.IGNORECASE), "engine-{}.log"),
    (re.compile(r"\braylet\b", re.IGNORECASE), "ray/raylet.out"),
    (re.compile(r"\bgcs\b", re.IGNORECASE), "ray/gcs_server.out"),
)
# Workers are numbered over all engines, their logs within each engine.
WORKER = re.compile(r"\bengine worker (\d+)\b", re.IGNORECASE)
WORKER_LOG = re.compile(r"engine-(\d+)-worker-(\d+)\.log")


def tail(run_dir: Path, reason: str) -> str:
    """Return the last lines of the log that explains a failure, and the path of that log.

    It is the log of the process that ``reason`` names, or the driver's if there is no such log or it is
    empty.
    """
    paths = RunPaths(run_dir)
    log = next((path for path in _named_logs(paths.logs, reason) if _has_text(path)), paths.driver_log)
    if not _has_text(log):
        return f"no process has written anything to {paths.logs}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([*lines[-TAIL_LINES:], f"the whole log: {log}"])


def keep_ray_logs(scratch_dir: Path, run_dir: Path) -> None:
    """Copy the last MiB of the logs of Ray's daemons, and of actors that never started, to ``logs/ray/``.

    Ray writes them to the scratch directory, which is removed after the run. On a full disk nothing is kept.
    """
    target_dir = RunPaths(run_dir).logs / "ray"
    for log in sorted((scratch_dir / "ray" / "session_latest" / "logs").glob("*.[oe][ur][tr]")):
        if not _has_text(log):
            continue
        try:
            target_dir.mkdir(exist_ok=True)
            with log.open("rb") as source, (target_dir / log.name).open("wb") as target:
                source.seek(max(0, os.fstat(source.fileno()).st_size - RAY_LOG_BYTES))
                shutil.copyfileobj(source, target)
        except OSError:
            return


def _named_logs(folder: Path, reason: str) -> list[Path]:
    if worker := WORKER.search(reason):
        matches = [match for path in folder.iterdir() if (match := WORKER_LOG.fullmatch(path.name))]
        matches.sort(key=lambda match: (int(match[1]), int(match[2])))
        return [folder / match[0] for match in matches][int(worker[1]) :][:1]
    found = ((pattern.search(reason), name) for pattern, name in LOG_PATTERNS)
    return [folder / name.format(*match.groups()) for match, name in found if match]


def _has_text(log: Path) -> bool:
    return log.is_file() and log.stat().st_size > 0
