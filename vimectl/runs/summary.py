"""Summarize how a run ended: ``summary.json`` for scripts, a table for people."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from vime_runtime.spec import metrics
from vime_runtime.spec.errors import INTERRUPTED, UsageError
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.private_values import hide
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.spec.run_paths import COUNTS_FILE, RunPaths

from vimectl.runs import log_files, report
from vimectl.runs.exit_status import ExitStatus
from vimectl.runs.run_directory import RunDirectory
from vimectl.runs.run_log import REWARD_WINDOW, RunLog, run_statistics
from vimectl.util.units import duration, size

# The summary is written to this file and then renamed. The space is reserved while there is some.
RESERVED_FILE = ".summary.json"
RESERVED_BYTES = 32 * 1024


def summarize(
    config: RunConfig,
    log: RunLog,
    status: ExitStatus,
    seconds: float,
    peak_bytes: int,
    unkillable: list[int],
) -> dict[str, Any]:
    """Return the content of ``summary.json``.

    Args:
        peak_bytes: the highest memory use that the supervisor measured.
    """
    found, run_dir = run_statistics(log), Path(config.run_dir)
    hint, excerpt = _explanation(run_dir, status)
    return {
        "ok": status.exit_code == 0,
        "steps": len(log.rows),
        "reason": status.reason,
        "where": status.where,
        "exit_code": status.exit_code,
        "phase": log.phase,
        "cause": status.process,
        "last_checkpoint": RunDirectory(run_dir).last_checkpoint,
        "restarts": log.restarts,
        "recipe": config.recipe.recipe.name,
        "mode": config.mode,
        "steps_wanted": config.steps,
        "seconds": round(seconds, 3),
        "skipped_prompts": _skipped_prompts(config.paths.problems),
        **found,
        "peak_memory_bytes": max(peak_bytes, found["peak_memory_bytes"]),
        "unkillable": unkillable,
        "hint": hint,
        "excerpt": excerpt,
    }


def _skipped_prompts(problems: Path) -> dict[str, int]:
    """Return the number of prompts that were too long, for each set that has some."""
    try:
        counts = read_json(problems / COUNTS_FILE, "")
    except UsageError:  # a run of an earlier version
        return {}
    return {name: found["skipped"] for name, found in counts.items() if found.get("skipped")}


def _explanation(run_dir: Path, status: ExitStatus) -> tuple[str, str]:
    """Return what to do after a failed run, and the traceback or the end of a log that shows the failure."""
    if status.exit_code in (0, INTERRUPTED):
        return status.hint, ""
    log = log_files.explaining_log(run_dir, status.reason)
    hint = status.hint or (f"read {log}" if log else f"no process has written anything to {run_dir / 'logs'}")
    if status.traceback or status.hint or not log:
        return hint, status.traceback
    return hint, log_files.excerpt(log)


def reserve(run_dir: Path) -> None:
    """Remove an earlier summary and reserve space for the next, so that a full disk does not prevent it."""
    RunPaths(run_dir).summary.unlink(missing_ok=True)
    with contextlib.suppress(OSError), (run_dir / RESERVED_FILE).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)


def write(run_dir: Path, summary: dict[str, Any]) -> bool:
    """Write ``summary.json`` completely or not at all; returns False if there is no space for it."""
    reserved = run_dir / RESERVED_FILE
    text = (hide(json.dumps(summary, indent=2)) + "\n").encode()
    try:
        # Opened without truncation, which would release the reserved space.
        with reserved.open("r+b" if reserved.exists() else "wb") as file:
            file.write(text)
            file.truncate()
        reserved.rename(RunPaths(run_dir).summary)
    except OSError as e:
        print(f"{e}; not written: {json.dumps(summary)}", file=sys.stderr)
        return False
    return True


def write_with_report(run_dir: Path, summary: dict[str, Any]) -> None:
    """Write ``summary.json`` and the report page, and hide private values in the logs.

    The hint says if there was no space for the summary.
    """
    if not write(run_dir, summary):
        summary["hint"] += "; summary.json could not be written"
    log_files.hide_private_values(run_dir)
    report.write_at_end(run_dir)


def table_rows(summary: dict[str, Any], run_dir: Path, last_row: dict[str, Any] | None) -> list[list[str]]:
    """Return the summary as rows of two columns. ``last_row`` has the metrics of the last step."""
    rows = [
        ["result", summary["reason"]],
        # Runs of an earlier version have no "where", and their hint is an excerpt of a log.
        *([["where", summary["where"]]] if summary.get("where") else []),
        *([["hint", summary["hint"]]] if "where" in summary and summary["hint"] else []),
        *([["last checkpoint", summary["last_checkpoint"]]] if summary.get("last_checkpoint") else []),
        *([["restarts", str(summary["restarts"])]] if summary.get("restarts") else []),
        ["steps", f"{summary['steps']} of {summary['steps_wanted']} in {duration(summary['seconds'])}"],
    ]
    if skipped := summary.get("skipped_prompts"):
        rows.append(["skipped prompts", ", ".join(f"{name} {count}" for name, count in skipped.items())])
    if last_row is not None:
        window = min(REWARD_WINDOW, summary["steps"])
        first, last = summary["reward_first"], summary["reward_last"]
        rows.append(["reward", f"{first:.3f} in the first {window} steps, {last:.3f} in the last {window}"])
        if summary.get("best_step") is not None:
            first, best = summary["evaluation_first"], summary["evaluation_best"]
            rows.append(
                ["evaluation", f"{first:.3f} at first, {best:.3f} at best, after step {summary['best_step']}"]
            )
        step, sync = summary["step_seconds_mean"], summary["sync_seconds_mean"]
        rows += [
            ["log-prob difference", f"{summary['logprob_abs_diff_mean_worst']:.1e} in the worst step"],
            ["rollout", f"{summary['tokens_per_second_mean']:.0f} tokens/s"],
            ["step", f"{step:.2f} s, {sync:.2f} s of it weight sync"],
            ["trainer memory", _memory(last_row, metrics.TRAIN_ACTIVE_BYTES, metrics.TRAIN_PAUSED_BYTES)],
            ["engine memory", _memory(last_row, metrics.ROLLOUT_ACTIVE_BYTES, metrics.ROLLOUT_PAUSED_BYTES)],
        ]
    rows.append(["peak memory", f"{size(summary['peak_memory_bytes'])}, all processes together"])
    rows.append(["run directory", str(run_dir)])
    return rows


def _memory(row: dict[str, Any], resident: str, offloaded: str) -> str:
    """Return the memory of trainer or engine while it is resident and while it is offloaded, as text."""
    return f"{size(row[resident])} resident, {size(row[offloaded])} offloaded"
