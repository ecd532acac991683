"""The kind ``reversed-digits``: a Qwen3 of a few million parameters that can partly reverse digits.

The task is "reverse 375 = " -> "573". A small model learns it from scratch in seconds, and every answer can
be verified by comparing text.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from vime_runtime.prepare.sft_warmup import Example, ReportProgress, SftStage, warm_up
from vime_runtime.spec.errors import UsageError

DIGITS = "0123456789"
# The parts of prompts and answers; each is one token.
WORDS = ["reverse ", " = ", *DIGITS]
PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"

BATCH = 64
HELD_OUT = 256
RIGHT_LR = 2e-3
# Lower, so that the falling accuracy does not skip the range in which it should end.
NOISY_LR = 2e-4


@dataclass(frozen=True)
class ReversedDigitsSettings:
    """Keys of ``[prepare.settings]`` and their defaults.

    ``right_labels`` is the fraction of right labels in the noisy stage. The accuracy drifts towards it, so it
    must be between ``accuracy_low`` and ``accuracy_high``. ``experts`` is the number of experts per layer, of
    which each token uses two.
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


def make(out_dir: Path, settings: ReversedDigitsSettings, report: ReportProgress) -> None:
    """Write ``out_dir/model`` and ``out_dir/problems.jsonl``; equal settings give equal bytes.

    The problems are not among the examples of the warm-up.

    Raises:
        UsageError: too many problems, or the warm-up does not reach its accuracy.
    """
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)
    pool = all_examples(settings.digits)
    if not 0 < settings.problems < len(pool):
        raise UsageError(
            f"prepare.settings.problems = {settings.problems}, expected 1 to {len(pool) - 1}: "
            f"there are {len(pool)} prompts of {settings.digits} digits and the warm-up needs some",
            "set more digits or fewer problems",
        )
    rng.shuffle(pool)
    problems, seen = pool[: settings.problems], pool[settings.problems :]
    tokenizer = build_tokenizer(WORDS)
    model = _build_model(tokenizer, settings.experts)

    right = draw_examples(seen, 1.0, rng)
    noisy = draw_examples(seen, settings.right_labels, rng)
    low, high = settings.accuracy_low, settings.accuracy_high
    stages = [
        SftStage("right labels", right, RIGHT_LR, settings.known_accuracy, 1.0, check_every=5),
        SftStage("noisy labels", noisy, NOISY_LR, low, high, check_every=1),
    ]
    warm_up(model, tokenizer, stages, problems[:HELD_OUT], BATCH, settings.max_steps, report)

    model.bfloat16().save_pretrained(out_dir / "model")
    tokenizer.save_pretrained(out_dir / "model")
    lines = [json.dumps({"prompt": problem.prompt, "label": problem.label}) for problem in problems]
    (out_dir / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def all_examples(digits: int) -> list[Example]:
    """Return every prompt with ``digits`` digits and its right answer; all have the same number of tokens."""
    return [
        Example(f"reverse {''.join(text)} = ", "".join(reversed(text)))
        for text in product(DIGITS, repeat=digits)
    ]


def draw_examples(pool: list[Example], right: float, rng: random.Random) -> Iterator[Example]:
    """Draw from ``pool`` forever; a fraction ``right`` of the draws keeps its label.

    The other labels are any digits, so that no wrong answer is frequent.
    """
    while True:
        example = rng.choice(pool)
        if rng.random() >= right:
            example = Example(example.prompt, "".join(rng.choices(DIGITS, k=len(example.label))))
        yield example


def build_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each of ``words``.

    Decoding restores text that consists of the words; any other character becomes ``<unk>``.
    """
    vocabulary = {word: number for number, word in enumerate([PAD, EOS, UNKNOWN, *words])}
    # Longest first: a word must not hide another one that begins with it.
    longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{longest_first}|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def _build_model(tokenizer: PreTrainedTokenizerFast, experts: int) -> PreTrainedModel:
    """Return a random model: 3.2 million parameters without experts, 5.5 million with eight."""
    shape: dict[str, Any] = {
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
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if not experts:
        return Qwen3ForCausalLM(Qwen3Config(**shape))
    shape |= {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, norm_topk_prob=True))
