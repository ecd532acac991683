"""What a run came to: ``summary.json`` for scripts, a table for people."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from vimectl.recipe.journal import Journal
from vimectl.recipe.plan import Plan
from vimectl.recipe.progress import tokens_per_second
from vimectl.recipe.supervise import Outcome
from vimectl.recipe.units import duration, size

# reward_first and reward_last are means over this many steps at either end.
REWARD_WINDOW = 5


def summarise(
    plan: Plan, journal: Journal, outcome: Outcome, exit_code: int, reason: str, prepare_peak_bytes: int
) -> dict[str, Any]:
    """The content of ``summary.json``. Figures of steps are None when there was no step."""
    rows = journal.rows

    def over(figures: list[float], take: Any) -> float | None:
        return take(figures) if figures else None

    rewards = [row["reward/mean"] for row in rows]
    scores = journal.scores
    # As the runtime marks it: the first of the highest, and never the policy that the run began with.
    best = max((step for step in sorted(scores) if step), key=lambda step: scores[step], default=None)
    return {
        "ok": exit_code == 0,
        "steps": len(rows),
        "reason": reason,
        "exit_code": exit_code,
        "phase": journal.phase,
        "recipe": plan.resolved.recipe.recipe.name,
        "mode": plan.resolved.mode,
        "steps_wanted": plan.resolved.steps,
        "reward_first": over(rewards[:REWARD_WINDOW], fmean),
        "reward_last": over(rewards[-REWARD_WINDOW:], fmean),
        "evaluation_first": scores[min(scores)] if scores else None,
        "evaluation_best": None if best is None else scores[best],
        "best_step": best,
        "seconds": round(outcome.seconds, 3),
        "step_seconds_mean": over([row["step/seconds"] for row in rows], fmean),
        "sync_seconds_mean": over([row["sync/seconds"] for row in rows], fmean),
        "tokens_per_second_mean": over([tokens_per_second(row) for row in rows], fmean),
        "logprob_abs_diff_mean_worst": over([row["logprob/abs_diff_mean"] for row in rows], max),
        "peak_memory_bytes": max(
            prepare_peak_bytes, outcome.peak_bytes, *(row["memory/peak_bytes"] for row in rows)
        ),
        "unkillable": outcome.unkillable,
    }


def table_rows(summary: dict[str, Any], run_dir: Path, last: dict[str, float] | None) -> list[list[str]]:
    """The summary as rows of two columns. ``last`` are the metrics of the last step."""
    rows = [
        ["result", summary["reason"]],
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
    if summary["best_step"] is None:
        return []
    first, best = summary["evaluation_first"], summary["evaluation_best"]
    return [["evaluation", f"{first:.3f} at first, {best:.3f} at best, after step {summary['best_step']}"]]


def _awake_and_paused(row: dict[str, float], side: str) -> str:
    awake, paused = row[f"memory/{side}_active_bytes"], row[f"memory/{side}_paused_bytes"]
    return f"{size(awake)} awake, {size(paused)} paused"
