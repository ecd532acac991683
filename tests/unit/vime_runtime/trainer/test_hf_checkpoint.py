from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from vime_runtime.spec.errors import UsageError
from vime_runtime.trainer import hf_checkpoint
from vime_runtime.trainer.hf_checkpoint import HFCheckpoint

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_refuses_an_incomplete_directory(make_model):
    directory = make_model()
    edit_config(directory, num_hidden_layers=3)
    with pytest.raises(UsageError, match=r"no tensor model.layers.2."):
        HFCheckpoint(directory)


def test_missing_keys_have_the_defaults_of_the_family(make_model):
    directory = make_model("llama", tie_word_embeddings=False, num_key_value_heads=4)
    complete = HFCheckpoint(directory).shape
    edit_config(directory, head_dim=None, num_key_value_heads=None, tie_word_embeddings=None)
    assert HFCheckpoint(directory).shape == complete


@pytest.mark.parametrize(("limit", "files"), [(hf_checkpoint.SHARD_BYTES, 1), (40_000, 6)])
def test_transformers_loads_what_is_written(make_model, tmp_path, monkeypatch, limit, files):
    monkeypatch.setattr(hf_checkpoint, "SHARD_BYTES", limit)
    source = make_model(tie_word_embeddings=False)
    copied = [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "merges.txt",
    ]
    for name in copied:
        (source / name).write_text('{"eos_token_id": [1, 2]}')
    (source / "pytorch_model.bin.index.json").touch()
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(source / "model.safetensors").items()}
    target = tmp_path / "saved"
    target.mkdir()
    (target / "stale").touch()

    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    hf_checkpoint.write(target, source, torch.bfloat16, sizes, iter(tensors.items()))

    assert len(list(target.glob("*.safetensors"))) == files
    assert all((target / name).read_bytes() == (source / name).read_bytes() for name in copied)
    assert not (target / "pytorch_model.bin.index.json").exists()
    assert not (target / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype="auto").state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_a_full_disk_raises_os_error(make_model, small_disk):
    weights = {"a": torch.zeros(2_000_000)}
    sizes = {name: tensor.nbytes for name, tensor in weights.items()}
    with pytest.raises(OSError, match="No space left on device"):
        hf_checkpoint.write(small_disk / "saved", make_model(), torch.float32, sizes, iter(weights.items()))
