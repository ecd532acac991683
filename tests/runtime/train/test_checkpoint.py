from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from vime_runtime.errors import InputError
from vime_runtime.train import checkpoint
from vime_runtime.train.checkpoint import Checkpoint


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "has no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda d: edit_config(d, model_type="mamba"), "model_type is 'mamba'; the trainer knows qwen3"),
        (lambda d: edit_config(d, head_dim=None), "lacks 'head_dim'"),
        (lambda d: edit_config(d, hidden_act="gelu"), "hidden_act is 'gelu'"),
        (
            lambda d: edit_config(d, rope_parameters={"rope_type": "yarn", "rope_theta": 1e6}),
            "rope type 'yarn'",
        ),
        (lambda d: edit_config(d, num_hidden_layers=3), "no tensor model.layers.2.input_layernorm.weight"),
        (lambda d: (d / "model.safetensors").unlink(), "neither model.safetensors nor"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\0" * 9), "cannot be read"),
        (
            lambda d: edit_weights(d, lambda t: t.pop("model.layers.1.mlp.up_proj.weight")),
            "no tensor model.layers.1.mlp.up_proj.weight",
        ),
        (
            lambda d: edit_weights(d, lambda t: t.update({"model.norm.weight": torch.ones(63)})),
            r"tensor model.norm.weight in .* is \[63\]; config.json makes it \[64\]",
        ),
    ],
)
def test_a_bad_directory_is_refused_with_its_fault(make_qwen3, damage, message):
    directory = make_qwen3()
    damage(directory)
    with pytest.raises(InputError, match=message):
        Checkpoint(directory)


def test_reads_the_base_of_the_rotary_embedding_where_older_transformers_wrote_it(make_qwen3):
    directory = make_qwen3()
    edit_config(directory, rope_parameters=None, rope_theta=5e5)
    assert Checkpoint(directory).shape.rope_base == 5e5


@pytest.mark.parametrize("size", [3, 4])
def test_refuses_a_tensor_parallel_size_that_does_not_divide_the_heads(make_qwen3, size):
    with pytest.raises(InputError, match=f"tensor_parallel = {size} does not divide the"):
        Checkpoint(make_qwen3()).shape.check_tensor_parallel(size, "model")


@pytest.mark.parametrize(("limit", "files"), [(checkpoint.SHARD_BYTES, 1), (40_000, 6)])
def test_writes_what_transformers_loads(make_qwen3, tmp_path, monkeypatch, limit, files):
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", limit)
    source = make_qwen3(tie_word_embeddings=False)
    (source / "tokenizer.json").write_text("{}")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(source / "model.safetensors").items()}
    target = tmp_path / "saved"
    target.mkdir()
    (target / "stale").touch()

    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    checkpoint.write(target, source, torch.bfloat16, sizes, iter(tensors.items()))

    assert len(list(target.glob("*.safetensors"))) == files
    assert (target / "tokenizer.json").exists()
    assert not (target / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype="auto").state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_a_full_disk_is_an_error_of_the_disk(make_qwen3, small_disk):
    weights = {"a": torch.zeros(2_000_000)}
    sizes = {name: tensor.nbytes for name, tensor in weights.items()}
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.write(small_disk / "saved", make_qwen3(), torch.float32, sizes, iter(weights.items()))
