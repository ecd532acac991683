"""The kind ``larger-number``: a 3-million-parameter Qwen3 that half knows which of two numbers is larger."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from vime_runtime.prepare import task, tokenizer
from vime_runtime.prepare.warmup import Lesson, Report, warm_up


@dataclass(frozen=True)
class Settings:
    """What ``[prepare.settings]`` may say, and what holds when it does not.

    ``right_labels`` is the share of right labels in the noisy lesson; the accuracy drifts
    towards it, so it has to lie between ``accuracy_low`` and ``accuracy_high``.
    """

    seed: int = 0
    digits: int = 2
    problems: int = 1024
    right_labels: float = 0.35
    known_accuracy: float = 0.75
    accuracy_low: float = 0.30
    accuracy_high: float = 0.40
    max_steps: int = 400


BATCH = 64
HELD_OUT = 128


def make(out_dir: Path, settings: Settings, report: Report) -> None:
    """Write ``out_dir/model`` and ``out_dir/problems.jsonl``, the same for the same settings.

    The problems are not among the examples of the warm-up.
    """
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)
    pool = task.examples(settings.digits)
    rng.shuffle(pool)
    problems, seen = pool[: settings.problems], pool[settings.problems :]
    tok = tokenizer.build(task.WORDS)
    model = Qwen3ForCausalLM(_shape(tok))

    right = task.draw(seen, 1.0, settings.digits, rng)
    noisy = task.draw(seen, settings.right_labels, settings.digits, rng)
    lessons = [
        Lesson("right labels", right, 1e-3, settings.known_accuracy, 1.0, check_every=5),
        Lesson("noisy labels", noisy, 3e-4, settings.accuracy_low, settings.accuracy_high, check_every=1),
    ]
    warm_up(model, tok, lessons, problems[:HELD_OUT], BATCH, settings.max_steps, report)

    model.to(torch.bfloat16).save_pretrained(out_dir / "model")
    tok.save_pretrained(out_dir / "model")
    lines = [json.dumps({"prompt": problem.prompt, "label": problem.label}) for problem in problems]
    (out_dir / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shape(tok: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        # A multiple that every tensor-parallel size divides.
        vocab_size=64,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
