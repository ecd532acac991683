"""The kind ``reversed-digits``: a Qwen3 of a few million parameters that can partly reverse digits.

The task is "reverse 375 = " -> "573". A small model learns it from scratch in seconds, and every answer can
be verified by comparing text.

Reinforcement learning has no signal where all answers to a prompt are right, or all are wrong. So the policy
first learns the task from right labels. Then it is trained on noisy labels until its accuracy has fallen into
a given range, from which reinforcement learning can raise it again.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from vime_runtime.prepare import ReportProgress
from vime_runtime.spec.atomic_io import unify_permissions
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
class Example:
    """A prompt and an answer, which may be wrong in a noisy example."""

    prompt: str
    label: str


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
    accuracy_low: float = 0.25
    accuracy_high: float = 0.38
    max_steps: int = 400


def make(out_dir: Path, settings: ReversedDigitsSettings, report: ReportProgress) -> None:
    """Write ``out_dir/model`` and ``out_dir/problems.jsonl``; equal settings give equal bytes.

    The problems are not among the examples of the warm-up.

    Raises:
        UsageError: too many problems, or the warm-up does not reach its accuracy.
    """
    rng = random.Random(settings.seed)  # nosec B311 # problems, repeatable
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
    _warm_up(model, tokenizer, seen, problems[:HELD_OUT], settings, rng, report)
    model.bfloat16().save_pretrained(out_dir / "model")
    tokenizer.save_pretrained(out_dir / "model")
    unify_permissions(out_dir / "model")
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


def _warm_up(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    seen: list[Example],
    held_out: list[Example],
    settings: ReversedDigitsSettings,
    rng: random.Random,
    report: ReportProgress,
) -> None:
    """Train ``model`` in place on draws from ``seen``, first with right and then with noisy labels.

    Raises:
        UsageError: the accuracy on ``held_out`` was not in range after ``max_steps`` steps of both stages.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    step = 0
    accuracy = expected_accuracy(model, tokenizer, held_out)
    for name, right, lr, low, high, check_every in (
        ("right labels", 1.0, RIGHT_LR, settings.known_accuracy, 1.0, 5),
        ("noisy labels", settings.right_labels, NOISY_LR, settings.accuracy_low, settings.accuracy_high, 1),
    ):
        source = draw_examples(seen, right, rng)
        target = f"{low:.2f} to {high:.2f}"
        for group in optimizer.param_groups:
            group["lr"] = lr
        while not low <= accuracy <= high:
            if step == settings.max_steps:
                raise UsageError(
                    f"the accuracy is {accuracy:.2f} after {step} steps of warm-up, in stage {name!r}; "
                    f"expected {target}",
                    "set another seed, or more max_steps, in [prepare.settings]",
                )
            step += 1
            optimizer.zero_grad()
            batch = list(islice(source, BATCH))
            torch.autograd.backward(-_answer_logprobs(model, tokenizer, batch).mean())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % check_every == 0:
                accuracy = expected_accuracy(model, tokenizer, held_out)
                report(step, f"{name}: accuracy {accuracy:.2f}, target {target}")


@torch.no_grad()
def expected_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> float:
    """Return the expected exact-match accuracy of answers sampled at temperature 1.

    This is the mean probability of the whole right answer including its end, so nothing is sampled.
    """
    return float(_answer_logprobs(model, tokenizer, examples).sum(dim=1).exp().mean())


def _answer_logprobs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> Tensor:
    """Return log-probabilities of the tokens of each answer and its end, float32 [examples, answer tokens].

    All examples of a task have the same number of tokens, so there is no padding.
    """
    texts = [example.prompt + example.label + tokenizer.eos_token for example in examples]
    ids = torch.tensor(tokenizer(texts).input_ids)  # [examples, tokens]
    count = len(tokenizer(examples[0].label).input_ids) + 1
    logits: Tensor = model(ids[:, :-1], logits_to_keep=count).logits.float()
    return logits.log_softmax(dim=-1).gather(-1, ids[:, -count:, None]).squeeze(-1)


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
        "bos_token_id": None,  # nosec B105 # a token of text
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if not experts:
        return Qwen3ForCausalLM(Qwen3Config(**shape))
    shape |= {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, norm_topk_prob=True))
