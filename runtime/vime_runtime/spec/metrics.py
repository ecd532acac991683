"""Keys of a row of ``metrics.jsonl``, with their meanings and units. They are stable for scripts."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """The meaning of a key of a row, and the unit of its value; "" if it has none."""

    meaning: str
    unit: str


# Every key of a row, except the scores of the evaluation sets, whose names a recipe chooses.
METRICS: dict[str, Metric] = {}


def seconds(phase: str) -> str:
    """Return the key of the time that a phase took: ``seconds("train") == "train/seconds"``."""
    return f"{phase}/seconds"


def _metric(key: str, meaning: str, unit: str = "") -> str:
    METRICS[key] = Metric(meaning, unit)
    return key


def _phase(name: str, meaning: str) -> str:
    _metric(seconds(name), meaning, "seconds")
    return name


STEP = _metric("step", "Number of the step; the first one is 1.")
REWARD_MEAN = _metric("reward/mean", "Mean reward of the responses.")
REWARD_STD = _metric("reward/std", "Standard deviation of the rewards.")
REWARD_MIN = _metric("reward/min", "Smallest reward.")
REWARD_MAX = _metric("reward/max", "Largest reward.")
REWARD_TIMEOUTS = _metric("reward/timeouts", "Responses whose scoring took too long.", "responses")
REWARD_ERRORS = _metric(
    "reward/errors", "Responses whose scoring raised an exception or ended its process.", "responses"
)
RESPONSE_LENGTH = _metric("response/length", "Mean length of the responses.", "tokens")
RESPONSE_LENGTH_P10 = _metric("response/length_p10", "10 % of the responses are no longer.", "tokens")
RESPONSE_LENGTH_P50 = _metric("response/length_p50", "50 % of the responses are no longer.", "tokens")
RESPONSE_LENGTH_P90 = _metric("response/length_p90", "90 % of the responses are no longer.", "tokens")
RESPONSE_TRUNCATED = _metric(
    "response/truncated", "Responses that reached rollout.max_response_tokens.", "fraction"
)
GROUPS_UNIFORM = _metric("groups/uniform", "Groups whose rewards are all equal.", "fraction")
ROLLOUT_TOKENS = _metric("rollout/tokens", "Tokens of all responses.", "tokens")
TRAIN_LOSS = _metric("train/loss", "Loss of the step.")
TRAIN_TOKENS = _metric(
    "train/tokens", "Response tokens that were trained on; 0: the optimizer made no step.", "tokens"
)
TRAIN_CLIP_FRACTION = _metric(
    "train/clip_fraction", "Tokens with a clipped probability ratio; 0 with one update a step.", "fraction"
)
TRAIN_IMPORTANCE_WEIGHT = _metric(
    "train/importance_weight", "Mean weight of the tokens, only with algorithm.importance_sampling_cap."
)
TRAIN_IMPORTANCE_CAPPED = _metric("train/importance_capped", "Tokens with a weight at the cap.", "fraction")
TRAIN_GRAD_NORM = _metric(
    "train/grad_norm", "Norm of the gradient before clipping, mean over the updates of the step."
)
TRAIN_ENTROPY = _metric("train/entropy", "Mean entropy of the tokens.", "nats per token")
TRAIN_KL = _metric(
    "train/kl",
    "KL divergence from the reference model, only with algorithm.kl_coefficient.",
    "nats per token",
)
TRAIN_LR = _metric("train/lr", "Learning rate of the step.")
SYNC_BYTES = _metric("sync/bytes", "Weights that the trainer sent to the engine.", "bytes")
LOGPROB_ABS_DIFF_MEAN = _metric(
    "logprob/abs_diff_mean",
    "Mean difference of the log-probabilities of the trainer before the update and of the engine.",
    "nats per token",
)
LOGPROB_ABS_DIFF_MAX = _metric("logprob/abs_diff_max", "Largest such difference.", "nats")
EVALUATION_SCORE = _metric("evaluation/score", "Mean score of the evaluation sets, in steps that evaluate.")
TRAIN_ACTIVE_BYTES = _metric(
    "memory/train_active_bytes", "Memory of the trainer while it is resident, over all ranks.", "bytes"
)
TRAIN_PAUSED_BYTES = _metric(
    "memory/train_paused_bytes",
    "Resident memory of the trainer while it is offloaded, over all ranks.",
    "bytes",
)
ROLLOUT_ACTIVE_BYTES = _metric(
    "memory/rollout_active_bytes", "Memory of the engine while it is resident, over all ranks.", "bytes"
)
ROLLOUT_PAUSED_BYTES = _metric(
    "memory/rollout_paused_bytes", "Resident memory of the engine while it sleeps, over all ranks.", "bytes"
)
PEAK_BYTES = _metric(
    "memory/peak_bytes", "Most memory of all processes of the run so far, without released memory.", "bytes"
)

# Phases that are timed.
ROLLOUT = _phase("rollout", "Generation alone.")
REWARD = _phase("reward", "From the end of the generation to the last reward.")
TRAIN = _phase("train", "Training.")
SYNC = _phase("sync", "Weights from trainer to engine.")
SLEEP = _phase("sleep", "The engine releases its device memory.")
WAKE = _phase("wake", "The engine allocates its device memory again.")
CHECKPOINT = _phase("checkpoint", "Saving the training state, in steps that save.")
EVALUATION = _phase("evaluation", "Answers to held-out problems, in steps that evaluate.")
WHOLE_STEP = _phase("step", "The whole step.")


def evaluation_score(name: str) -> str:
    """Return the key of the score of one evaluation set: ``evaluation/NAME/score``."""
    return f"evaluation/{name}/score"


def evaluation_set(key: str) -> str | None:
    """Return the set whose score has this key, None for any other key."""
    parts = key.split("/")
    return parts[1] if len(parts) == 3 and key == evaluation_score(parts[1]) else None
