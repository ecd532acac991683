"""Keys of a row of ``metrics.jsonl``. They are stable for scripts; timings are in seconds, sizes in bytes."""

from __future__ import annotations

STEP = "step"
REWARD_MEAN = "reward/mean"
REWARD_STD = "reward/std"
REWARD_MIN = "reward/min"
REWARD_MAX = "reward/max"
RESPONSE_LENGTH = "response/length"  # tokens, mean over the step
# Tokens: so many percent of the responses are no longer than this.
RESPONSE_LENGTH_P10 = "response/length_p10"
RESPONSE_LENGTH_P50 = "response/length_p50"
RESPONSE_LENGTH_P90 = "response/length_p90"
ROLLOUT_TOKENS = "rollout/tokens"
TRAIN_LOSS = "train/loss"
TRAIN_TOKENS = "train/tokens"  # response tokens that were trained on; 0: the optimizer made no step
TRAIN_CLIP_FRACTION = "train/clip_fraction"  # share of tokens with a clipped ratio; 0 with one update a step
TRAIN_IMPORTANCE_WEIGHT = "train/importance_weight"  # mean over tokens, only with a cap
TRAIN_IMPORTANCE_CAPPED = "train/importance_capped"  # share of tokens with a weight at the cap
TRAIN_GRAD_NORM = "train/grad_norm"  # before clipping; mean over the updates of the step
TRAIN_ENTROPY = "train/entropy"  # nats per token
TRAIN_KL = "train/kl"  # nats per token, only with a reference model
TRAIN_LR = "train/lr"
SYNC_BYTES = "sync/bytes"
LOGPROB_ABS_DIFF_MEAN = "logprob/abs_diff_mean"  # trainer before the update against engine, nats per token
LOGPROB_ABS_DIFF_MAX = "logprob/abs_diff_max"
REWARD_TIMEOUTS = "reward/timeouts"  # responses whose scoring took too long
REWARD_ERRORS = "reward/errors"  # responses whose scoring raised an exception or ended its process
RESPONSE_TRUNCATED = "response/truncated"  # share of the responses that reached the token limit
GROUPS_UNIFORM = "groups/uniform"  # share of the groups whose rewards are all equal
EVALUATION_SCORE = "evaluation/score"  # mean over the sets
TRAIN_ACTIVE_BYTES = "memory/train_active_bytes"
TRAIN_PAUSED_BYTES = "memory/train_paused_bytes"
ROLLOUT_ACTIVE_BYTES = "memory/rollout_active_bytes"
ROLLOUT_PAUSED_BYTES = "memory/rollout_paused_bytes"
PEAK_BYTES = "memory/peak_bytes"

# Phases that are timed; the key is ``<phase>/seconds``.
ROLLOUT = "rollout"  # generation alone
REWARD = "reward"  # from the end of the generation to the last reward
TRAIN = "train"
SYNC = "sync"
SLEEP = "sleep"
WAKE = "wake"
CHECKPOINT = "checkpoint"
EVALUATION = "evaluation"
WHOLE_STEP = "step"


def evaluation_score(name: str) -> str:
    """Return the key of the score of one evaluation set: ``evaluation/NAME/score``."""
    return f"evaluation/{name}/score"


def evaluation_set(key: str) -> str | None:
    """Return the set whose score has this key, None for any other key."""
    parts = key.split("/")
    return parts[1] if len(parts) == 3 and key == evaluation_score(parts[1]) else None


def seconds(phase: str) -> str:
    """Return the key of the time that a phase took: ``seconds("train") == "train/seconds"``."""
    return f"{phase}/seconds"
