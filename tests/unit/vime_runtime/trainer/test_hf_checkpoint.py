from __future__ import annotations

import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from vime_runtime.spec.errors import UsageError
from vime_runtime.trainer import hf_checkpoint
from vime_runtime.trainer.hf_checkpoint import HFCheckpoint


def test_refuses_an_incomplete_directory(make_model):
    directory = make_model()
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UsageError, match=r"no tensor model.layers.2."):
        HFCheckpoint(directory)


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

    hf_checkpoint.write(target, HFCheckpoint(source), torch.bfloat16, iter(tensors.items()))

    assert len(list(target.glob("*.safetensors"))) == files
    assert all((target / name).read_bytes() == (source / name).read_bytes() for name in copied)
    assert not (target / "pytorch_model.bin.index.json").exists()
    assert not (target / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype="auto").state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022])
def test_all_files_have_the_permissions_of_the_umask(make_model, tmp_path, umask):
    source = make_model()
    (source / "tokenizer.json").write_text("{}")
    weights = load_file(source / "model.safetensors")
    before = os.umask(umask)
    try:
        hf_checkpoint.write(tmp_path / "saved", HFCheckpoint(source), torch.float32, iter(weights.items()))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "saved").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= modes.keys()
    assert set(modes.values()) == {0o666 & ~umask}
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o777 & ~umask


def test_a_full_disk_raises_os_error(make_model, small_disk):
    source = make_model(vocab_size=40_000)
    weights = load_file(source / "model.safetensors")
    with pytest.raises(OSError, match="No space left on device"):
        hf_checkpoint.write(small_disk / "saved", HFCheckpoint(source), torch.float32, iter(weights.items()))
