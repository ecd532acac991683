"""Write small random checkpoints with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

# Tokens that end a text.
ENDS = [1, 2]
# Sampling parameters that a model directory recommends. Runs must ignore them.
SAMPLING = {
    "do_sample": True,
    "temperature": 0.3,
    "top_k": 5,
    "top_p": 0.8,
    "repetition_penalty": 1.5,
    "max_new_tokens": 4,
}


def write_model(
    directory: Path,
    family: str = "qwen3",
    dtype: torch.dtype = torch.float32,
    shard: str = "1GB",
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a random model of a family without a tokenizer; keyword arguments change its configuration."""
    shape = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }
    if family.startswith("qwen3"):
        shape["head_dim"] = 32  # unlike hidden_size / heads
    if family == "qwen3_moe":
        shape |= {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
        shape["norm_topk_prob"] = True
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape | changes))
    for name, parameter in model.named_parameters():
        if "norm" in name:  # all ones would hide a norm in the wrong place
            parameter.data.uniform_(0.5, 1.5)
        elif name.endswith("bias"):  # and zeros a bias
            parameter.data.uniform_(-0.5, 0.5)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    return directory


def write_checkpoint(
    directory: Path, seed: int, family: str = "qwen3", tied: bool = False, **changes: Any
) -> Path:
    """Write one as people publish it: tokenizer, chat template, generation settings; ENDS end a text.

    The words of the tokenizer are t0, t1, ..., one for each row of the embedding.
    """
    size = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 64}
    changes = size | {"max_position_embeddings": 512, "tie_word_embeddings": tied} | changes
    write_model(directory, family, seed=seed, **changes)
    vocabulary = {f"t{i}": i for i in range(changes.get("vocab_size", 64)) if i != ENDS[0]} | {
        "<end>": ENDS[0]
    }
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    tokenizer.chat_template = "{% for m in messages %}t10 {{ m.content }} {% endfor %}t11"
    tokenizer.save_pretrained(directory)
    GenerationConfig(eos_token_id=ENDS, **SAMPLING).save_pretrained(directory)
    return directory
