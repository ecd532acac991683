"""The log files of a run: the end of the one that explains a failure, and those of Ray."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

from vime_runtime.spec.errors import DEVICE_MEMORY_HINT
from vime_runtime.spec.run_paths import RunPaths

from vimectl.runs.exit_status import ExitStatus

TAIL_LINES = 15
# Ray's log files are short unless something fails again and again.
RAY_LOG_BYTES = 1024**2

# torch_memory_saver calls exit(1) after such a line (SIMPLE_CHECK in ``csrc/utils.h``), without an exception.
# The first word after it is the call that failed; cpu_backup is missing after a failed aclrtMallocHost.
MEMORY_SAVER = "[torch_memory_saver.cpp] "
MEMORY_SAVER_HINTS = {
    "aclrtMallocPhysical": DEVICE_MEMORY_HINT,
    "cpu_backup": "the machine has too little memory for an offloaded trainer: see memory.host_bytes",
}
MEMORY_SAVER_HINT = "the log of the driver, in ~/ascend/log, may say why the call failed"

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
    log = _log(run_dir, reason)
    lines = _last_lines(log)
    if not lines:
        return f"no process has written anything to {log.parent}"
    return "\n".join([*lines, f"the whole log: {log}"])


def explain_exit(run_dir: Path, status: ExitStatus) -> ExitStatus:
    """Say in the reason that torch_memory_saver ended the process to blame, and why, if its log does."""
    if not status.process or "was killed" in status.reason:
        return status
    lines = _last_lines(_log(run_dir, status.reason))
    last_words = [line.removeprefix(MEMORY_SAVER) for line in lines if line.startswith(MEMORY_SAVER)]
    if not last_words:
        return status
    failure = last_words[-1].partition(" file=")[0]
    hint = MEMORY_SAVER_HINTS.get(failure.split()[0], MEMORY_SAVER_HINT)
    return replace(status, reason=f"{status.reason}: torch_memory_saver ended it: {failure}", hint=hint)


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


def _log(run_dir: Path, reason: str) -> Path:
    paths = RunPaths(run_dir)
    return next((path for path in _named_logs(paths.logs, reason) if _has_text(path)), paths.driver_log)


def _last_lines(log: Path) -> list[str]:
    if not _has_text(log):
        return []
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]


def _named_logs(folder: Path, reason: str) -> list[Path]:
    if worker := WORKER.search(reason):
        matches = [match for path in folder.iterdir() if (match := WORKER_LOG.fullmatch(path.name))]
        matches.sort(key=lambda match: (int(match[1]), int(match[2])))
        return [folder / match[0] for match in matches][int(worker[1]) :][:1]
    found = ((pattern.search(reason), name) for pattern, name in LOG_PATTERNS)
    return [folder / name.format(*match.groups()) for match, name in found if match]


def _has_text(log: Path) -> bool:
    return log.is_file() and log.stat().st_size > 0
