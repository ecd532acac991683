"""Write a Hugging Face directory with weight files of full size that take no disk space."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from vime_runtime.spec.model_families import family_of

# config.json as published.
QWEN3_4B = {
    "model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 2560, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728, "vocab_size": 151_936,
    "tie_word_embeddings": True, "max_position_embeddings": 40_960, "rms_norm_eps": 1e-6,
}  # fmt: skip
SHARDS = 2


def write(directory: Path, changes: dict[str, Any]) -> None:
    """Write Qwen3-4B with ``changes`` of its config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    config = QWEN3_4B | changes
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    family = family_of(config, "")
    shapes = list(family.tensors(family.shape(config, "")).items())
    places = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        some = shapes[shard::SHARDS]
        places |= {name: file for name, _ in some}
        _file(directory / file, some)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _file(path: Path, shapes: list[tuple[str, tuple[int, ...]]]) -> None:
    header, end = {}, 0
    for name, shape in shapes:
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # a hole: it takes no space
