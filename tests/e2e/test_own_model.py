"""A model and data of the user: of another family, with an odd vocabulary, shards and a chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.runs.recipe_run import run_recipe
from harness.tolerances import LOGPROB_FP32


@pytest.mark.parametrize(
    ("family", "recipe"),
    [
        pytest.param("qwen3_moe", "qwen3-moe-tiny-tp2", marks=pytest.mark.slow),
        pytest.param("llama", "qwen3-tiny-tp2", marks=pytest.mark.exhaustive),
    ],
)
def test_model_of_another_family_is_trained_and_exported_in_its_format(
    family: str, recipe: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_checkpoint(seed=0, family=family, vocab_size=65, shard="2MB")
    assert len(list(model.glob("*.safetensors"))) > 1
    data = tmp_path / "data.jsonl"
    lines = [{"prompt": f"t{a} t{b}", "label": "7"} for a in range(3, 9) for b in range(3, 9)]
    data.write_text("\n".join(map(json.dumps, lines)))
    settings = {
        "model.path": model,
        "model.dtype": "float32",
        "data.path": data,
        "data.apply_chat_template": "true",
        "data.reward": "operator:countOf",  # the number of 7s in the response
        "optimizer.lr": "1e-3",
        "evaluation.problems": 8,
    }
    run = run_recipe(
        tmp_path / "run",
        "--mode",
        "smoke",
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
        recipe=recipe,
    )
    assert run.code == 0, run.output
    assert max(row["logprob/abs_diff_mean"] for row in run.metrics) <= LOGPROB_FP32
    assert run.metrics[-1]["reward/mean"] > run.metrics[0]["reward/mean"]

    exported = run.directory / "checkpoints" / "final"
    kept = {path.name for path in model.iterdir() if path.suffix != ".safetensors"}
    kept -= {"config.json", "model.safetensors.index.json"}
    assert {"generation_config.json", "chat_template.jinja", "tokenizer.json"} <= kept
    assert all((exported / name).read_bytes() == (model / name).read_bytes() for name in kept)
    before, after = (
        dict(AutoModelForCausalLM.from_pretrained(path, dtype="auto").named_parameters())
        for path in (model, exported)
    )
    assert before.keys() == after.keys()
    for name, parameter in before.items():
        assert parameter.shape == after[name].shape
        assert not torch.equal(parameter, after[name]), name
