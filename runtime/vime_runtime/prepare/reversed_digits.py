"""The kind ``reversed-digits``: a Qwen3 of a few million parameters that half knows how to reverse digits."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from vime_runtime.prepare import task, tokenizer
from vime_runtime.prepare.warmup import Lesson, Report, warm_up
from vime_runtime.spec.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """What ``[prepare.settings]`` may say, and what holds when it does not.

    ``right_labels`` is the share of right labels in the noisy lesson; the accuracy drifts
    towards it, so it has to lie between ``accuracy_low`` and ``accuracy_high``. With ``experts`` every
    layer has so many, of which each token takes two.
    """

    seed: int = 0
    digits: int = 3
    problems: int = 512
    experts: int = 0
    known_accuracy: float = 0.93
    right_labels: float = 0.33
    accuracy_low: float = 0.28
    accuracy_high: float = 0.38
    max_steps: int = 400


BATCH = 64
HELD_OUT = 256
RIGHT_LR = 2e-3
# Slower, so that the fall from sure to unsure does not miss the range it should end in.
NOISY_LR = 2e-4


def make(out_dir: Path, settings: Settings, report: Report) -> None:
    """Write ``out_dir/model`` and ``out_dir/problems.jsonl``, the same for the same settings.

    The problems are not among the examples of the warm-up.

    Raises:
        UsageError: more problems are wanted than can be spared, or the warm-up does not get there.
    """
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)
    pool = task.examples(settings.digits)
    if not 0 < settings.problems < len(pool):
        raise UsageError(
            f"prepare.settings.problems = {settings.problems}, expected 1 to {len(pool) - 1}: "
            f"there are {len(pool)} prompts of {settings.digits} digits and the warm-up needs some",
            "set more digits or fewer problems",
        )
    rng.shuffle(pool)
    problems, seen = pool[: settings.problems], pool[settings.problems :]
    tok = tokenizer.build(task.WORDS)
    model = _model(tok, settings.experts)

    right = task.draw(seen, 1.0, rng)
    noisy = task.draw(seen, settings.right_labels, rng)
    lessons = [
        Lesson("right labels", right, RIGHT_LR, settings.known_accuracy, 1.0, check_every=5),
        Lesson("noisy labels", noisy, NOISY_LR, settings.accuracy_low, settings.accuracy_high, check_every=1),
    ]
    warm_up(model, tok, lessons, problems[:HELD_OUT], BATCH, settings.max_steps, report)

    model.to(torch.bfloat16).save_pretrained(out_dir / "model")
    tok.save_pretrained(out_dir / "model")
    lines = [json.dumps({"prompt": problem.prompt, "label": problem.label}) for problem in problems]
    (out_dir / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _model(tok: PreTrainedTokenizerFast, experts: int) -> PreTrainedModel:
    """A random model: 3.2 million parameters without experts, 5.5 million with eight."""
    shape = {
        # More than there are tokens: a round number that tensor parallelism can split.
        "vocab_size": 64,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
    }
    if not experts:
        return Qwen3ForCausalLM(Qwen3Config(**shape))
    chosen = {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, **chosen, norm_topk_prob=True))
