"""Compute statistics over the steps of a run, for its summary and its report page."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from vime_runtime.spec import metrics

from vimectl.runs.run_log import RunLog, finite_number

# reward_first and reward_last are means over this many steps.
REWARD_WINDOW = 5


def run_statistics(log: RunLog) -> dict[str, Any]:
    """Return statistics over all steps of a run. Those of metrics that no step has are None.

    ``best_step`` is the first step with the highest score, as in the runtime. It is never step 0, the model
    before training.
    """
    rewards = _column(log, metrics.REWARD_MEAN)
    rates = [rate for row in log.rows if (rate := tokens_per_second(row)) is not None]
    scores = log.scores
    best = max((step for step in sorted(scores) if step), key=lambda step: scores[step], default=None)
    return {
        "reward_first": _mean(rewards[:REWARD_WINDOW]),
        "reward_last": _mean(rewards[-REWARD_WINDOW:]),
        "evaluation_first": scores[min(scores)] if scores else None,
        "evaluation_best": None if best is None else scores[best],
        "best_step": best,
        "step_seconds_mean": _mean(_column(log, metrics.seconds(metrics.WHOLE_STEP))),
        "sync_seconds_mean": _mean(_column(log, metrics.seconds(metrics.SYNC))),
        "tokens_per_second_mean": _mean(rates),
        "logprob_abs_diff_mean_worst": max(_column(log, metrics.LOGPROB_ABS_DIFF_MEAN), default=None),
        "peak_memory_bytes": max(_column(log, metrics.PEAK_BYTES), default=0),
    }


def _column(log: RunLog, key: str) -> list[float]:
    """Return the finite values of one metric, step by step."""
    return [value for row in log.rows if (value := finite_number(row.get(key))) is not None]


def tokens_per_second(row: dict[str, Any]) -> float | None:
    """Return the response tokens sampled per second of the rollout phase; None if that is unknown."""
    tokens = finite_number(row.get(metrics.ROLLOUT_TOKENS))
    seconds = finite_number(row.get(metrics.seconds(metrics.ROLLOUT)))
    return tokens / seconds if tokens is not None and seconds else None


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None
