"""The log files of a run: an excerpt of the one that explains a failure, and those of Ray."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

from vime_runtime.spec.errors import DEVICE_MEMORY_HINT
from vime_runtime.spec.private_values import hidden_forms
from vime_runtime.spec.regular_files import open_regular
from vime_runtime.spec.run_paths import RunPaths
from vime_runtime.spec.traceback_text import exception_text, last_traceback, location, plain_lines

from vimectl.runs.exit_status import ExitStatus

# Lines of a log that are shown, and those in which a traceback is looked for.
TAIL_LINES = 15
SEARCHED_LINES = 200
# A log may have gigabytes.
SEARCHED_BYTES = 2**20
# The line that marks a phase in a log of the runtime, and a line of a library's warning with its source.
PHASE_MARK = re.compile(r"--- \d\d:\d\d:\d\d ")
WARNING = re.compile(r"/.*/site-packages/.*:\d+: \w*Warning: .*\n  .*\n?", re.MULTILINE)
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
    (re.compile(r"\bsupervisor\b", re.IGNORECASE), "supervisor.log"),
)
# Workers are numbered over all engines, their logs within each engine.
WORKER = re.compile(r"\bengine worker (\d+)\b", re.IGNORECASE)
WORKER_LOG = re.compile(r"engine-(\d+)-worker-(\d+)\.log")


def explaining_log(run_dir: Path, reason: str) -> Path | None:
    """Return the log that explains a failure; None if no process has written one.

    It is the log of the process that ``reason`` names, or the driver's if there is no such log or it is
    empty.
    """
    log = _log(run_dir, reason)
    return log if _has_text(log) else None


def excerpt(log: Path) -> str:
    """Return the last traceback at the end of a log, or its last lines if there is none."""
    lines = _last_lines(log)
    return "\n".join(last_traceback(lines) or lines[-TAIL_LINES:])


def explain_exit(run_dir: Path, status: ExitStatus) -> ExitStatus:
    """Say in the reason what only a log says.

    That is why torch_memory_saver ended a process, or which process failed while the others wait for it.
    """
    if status.process:
        return _explain_memory_saver(run_dir, status)
    return _explain_hang(run_dir, status) if status.restartable and not status.traceback else status


def _explain_hang(run_dir: Path, status: ExitStatus) -> ExitStatus:
    """Name an exception that a process of a hanging run has logged since its last phase began.

    vLLM passes on the errors of one worker only; if another one fails, that one waits for it.
    """
    for log in sorted(RunPaths(run_dir).logs.glob("*-*.log")):
        lines = _last_lines(log)
        marks = [number for number, line in enumerate(lines) if PHASE_MARK.match(line)]
        if trace := last_traceback(lines[marks[-1] :] if marks else lines):
            reason = f"{status.reason}; in {log.name}: {exception_text(trace)}"
            return replace(
                status, reason=reason, restartable=False, where=location(trace), traceback="\n".join(trace)
            )
    return status


def _explain_memory_saver(run_dir: Path, status: ExitStatus) -> ExitStatus:
    """Say that torch_memory_saver ended the process to blame, and why, if its log does."""
    if "was killed" in status.reason:
        return status
    lines = _last_lines(_log(run_dir, status.reason))[-TAIL_LINES:]
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


def hide_private_values(run_dir: Path) -> None:
    """Overwrite the private values of the run in its log files: its processes may have printed them."""
    forms = [form.encode() for form in hidden_forms()]
    for log in sorted(RunPaths(run_dir).logs.rglob("*")) if forms else ():
        if log.is_symlink() or not _has_text(log):
            continue
        # In place, because it may be large and the disk full.
        with contextlib.suppress(OSError), log.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            for form in forms:
                position = -1
                while (position := content.find(form, position + 1)) >= 0:
                    content[position : position + len(form)] = b"*" * len(form)


def _log(run_dir: Path, reason: str) -> Path:
    paths = RunPaths(run_dir)
    return next((path for path in _named_logs(paths.logs, reason) if _has_text(path)), paths.driver_log)


def _last_lines(log: Path) -> list[str]:
    if not _has_text(log):
        return []
    with open_regular(log) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - SEARCHED_BYTES))
        text = file.read(SEARCHED_BYTES).decode(errors="replace").rstrip()
    text = WARNING.sub("", text)
    return plain_lines(text)[-SEARCHED_LINES:]


def _named_logs(folder: Path, reason: str) -> list[Path]:
    if folder.is_dir() and (worker := WORKER.search(reason)):
        matches = [match for path in folder.iterdir() if (match := WORKER_LOG.fullmatch(path.name))]
        matches.sort(key=lambda match: (int(match[1]), int(match[2])))
        return [folder / match[0] for match in matches][int(worker[1]) :][:1]
    found = ((pattern.search(reason), name) for pattern, name in LOG_PATTERNS)
    return [folder / name.format(*match.groups()) for match, name in found if match]


def _has_text(log: Path) -> bool:
    return log.is_file() and log.stat().st_size > 0
