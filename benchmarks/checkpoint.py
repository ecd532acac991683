"""Random Qwen3 checkpoints with a tokenizer and problems, for benchmarks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 64
PROBLEMS = 512

# Arguments of ``Qwen3Config`` by number of parameters.
SHAPES: dict[str, dict[str, int]] = {
    "3.2 M": {  # the default recipe's
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "32 M": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}


def write(folder: Path, shape: str, dtype: torch.dtype, prompt_tokens: int) -> None:
    """Write ``folder/model`` and ``folder/problems.jsonl``, with prompts of that many tokens.

    The end-of-text token is outside the model's vocabulary and is never sampled, so every response has the
    maximum length.
    """
    tokenizer = _tokenizer()
    write_model(folder / "model", dtype, vocab_size=VOCABULARY, head_dim=64, **SHAPES[shape])
    tokenizer.save_pretrained(folder / "model")
    draw = random.Random(0)  # nosec B311 # data, not keys
    lines = []
    for _ in range(PROBLEMS):
        words = [f"t{draw.randrange(2, VOCABULARY)}" for _ in range(prompt_tokens)]
        lines.append(json.dumps({"prompt": " ".join(words), "label": "t2"}))
    (folder / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_model(folder: Path, dtype: torch.dtype, **shape: Any) -> None:
    """Write a Qwen3 of this shape with random weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **shape,
    )
    torch.set_default_dtype(dtype)
    try:
        Qwen3ForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)


def _tokenizer() -> PreTrainedTokenizerFast:
    # A special token is found inside words too: as "t1" it would split "t18".
    words = {"t0": 0, "<pad>": 1, **{f"t{i}": i for i in range(2, VOCABULARY)}, "<eos>": VOCABULARY}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))  # nosec B106 # a token of text
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Tokens of text.
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")  # nosec B106
