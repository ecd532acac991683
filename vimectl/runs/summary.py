"""What a run came to: ``summary.json`` for scripts, a table for people."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from vimectl.runs.exit_status import Verdict
from vimectl.runs.progress import tokens_per_second
from vimectl.runs.run_log import Journal
from vimectl.runs.run_state import SUMMARY_FILE
from vimectl.util.units import duration, size

# Where the summary is written before it is renamed, with room set aside for it while there is some.
_NEW = ".summary.json"
_ROOM_BYTES = 32 * 1024

# reward_first and reward_last are means over this many steps at either end.
REWARD_WINDOW = 5


def summarise(
    document: dict[str, Any],
    journal: Journal,
    verdict: Verdict,
    seconds: float,
    peak_bytes: int,
    unkillable: list[int],
    hint: str,
) -> dict[str, Any]:
    """The content of ``summary.json``. Figures of steps are None when there was no step.

    Args:
        document: the content of ``resolved.json``.
        hint: the mend, or the end of the log.
    """
    rows = journal.rows

    def over(figures: list[float], take: Any) -> float | None:
        return take(figures) if figures else None

    rewards = [row["reward/mean"] for row in rows]
    scores = journal.scores
    # As the runtime marks it: the first of the highest, and never the policy that the run began with.
    best = max((step for step in sorted(scores) if step), key=lambda step: scores[step], default=None)
    return {
        "ok": verdict.exit_code == 0,
        "steps": len(rows),
        "reason": verdict.reason,
        "exit_code": verdict.exit_code,
        "phase": journal.phase,
        "cause": verdict.process,
        "last_checkpoint": last_checkpoint(Path(document["run_dir"])),
        "restarts": journal.restarts,
        "recipe": document["recipe"]["recipe"]["name"],
        "mode": document["mode"],
        "steps_wanted": document["steps"],
        "reward_first": over(rewards[:REWARD_WINDOW], fmean),
        "reward_last": over(rewards[-REWARD_WINDOW:], fmean),
        "evaluation_first": scores[min(scores)] if scores else None,
        "evaluation_best": None if best is None else scores[best],
        "best_step": best,
        "seconds": round(seconds, 3),
        "step_seconds_mean": over([row["step/seconds"] for row in rows], fmean),
        "sync_seconds_mean": over([row["sync/seconds"] for row in rows], fmean),
        "tokens_per_second_mean": over([tokens_per_second(row) for row in rows], fmean),
        "logprob_abs_diff_mean_worst": over([row["logprob/abs_diff_mean"] for row in rows], max),
        "peak_memory_bytes": max(peak_bytes, *(row["memory/peak_bytes"] for row in rows), 0),
        "unkillable": unkillable,
        "hint": hint,
    }


def last_checkpoint(run_dir: Path) -> str | None:
    """The newest whole state of the run, relative to its directory."""
    whole = sorted(path.parent.name for path in run_dir.glob("checkpoints/step-*/manifest.json"))
    whole = [name for name in whole if not name.endswith(".partial")]
    return f"checkpoints/{whole[-1]}" if whole else None


def reserve(run_dir: Path) -> None:
    """Remove an earlier summary and set room aside for the next, so that a full disk does not prevent it."""
    (run_dir / SUMMARY_FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError), (run_dir / _NEW).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)


def write(run_dir: Path, summary: dict[str, Any]) -> bool:
    """Write ``summary.json``, whole or not at all; returns whether that was possible."""
    new = run_dir / _NEW
    text = (json.dumps(summary, indent=2) + "\n").encode()
    try:
        # Written into the room that was set aside: emptying the file would give it away.
        with new.open("r+b" if new.exists() else "wb") as file:
            file.write(text)
            file.truncate()
        new.rename(run_dir / SUMMARY_FILE)
    except OSError as e:
        print(f"{e}; not written: {json.dumps(summary)}", file=sys.stderr)
        return False
    return True


def table_rows(summary: dict[str, Any], run_dir: Path, last: dict[str, float] | None) -> list[list[str]]:
    """The summary as rows of two columns. ``last`` are the metrics of the last step."""
    rows = [
        ["result", summary["reason"]],
        *([["last checkpoint", summary["last_checkpoint"]]] if summary.get("last_checkpoint") else []),
        *([["restarts", str(summary["restarts"])]] if summary.get("restarts") else []),
        ["steps", f"{summary['steps']} of {summary['steps_wanted']} in {duration(summary['seconds'])}"],
    ]
    if last is not None:
        window = min(REWARD_WINDOW, summary["steps"])
        rows += [
            [
                "reward",
                f"{summary['reward_first']:.3f} in the first {window} steps, "
                f"{summary['reward_last']:.3f} in the last {window}",
            ],
            *_evaluation(summary),
            ["log-prob difference", f"{summary['logprob_abs_diff_mean_worst']:.1e} in the worst step"],
            ["rollout", f"{summary['tokens_per_second_mean']:.0f} tokens/s"],
            [
                "step",
                f"{summary['step_seconds_mean']:.2f} s, sync {summary['sync_seconds_mean']:.2f} s of it",
            ],
            ["trainer memory", _awake_and_paused(last, "train")],
            ["engine memory", _awake_and_paused(last, "rollout")],
        ]
    rows.append(["peak memory", f"{size(summary['peak_memory_bytes'])}, all processes together"])
    rows.append(["run directory", str(run_dir)])
    return rows


def _evaluation(summary: dict[str, Any]) -> list[list[str]]:
    if summary.get("best_step") is None:
        return []
    first, best = summary["evaluation_first"], summary["evaluation_best"]
    return [["evaluation", f"{first:.3f} at first, {best:.3f} at best, after step {summary['best_step']}"]]


def _awake_and_paused(row: dict[str, float], side: str) -> str:
    awake, paused = row[f"memory/{side}_active_bytes"], row[f"memory/{side}_paused_bytes"]
    return f"{size(awake)} awake, {size(paused)} paused"
