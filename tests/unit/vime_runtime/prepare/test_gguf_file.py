"""A small Llama, written as GGUF the way llama.cpp does it, becomes a Hugging Face directory again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
from vime_runtime.prepare.__main__ import prepare
from vime_runtime.spec.errors import UsageError

from harness.tolerances import of_sum

HEADS, KV_HEADS, LAYERS = 4, 2, 2
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefgh0123456789", "Ġ", "ab", "Ġc"]
CONTROL, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def small_llama() -> LlamaForCausalLM:
    """Return a model in fp32 with weights that bf16 can represent."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Return a query or key projection with rows in GGUF's order: rows that rotate together are adjacent."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, model: LlamaForCausalLM, pre: str = "smollm", missing: str = "") -> None:
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("small")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1e5)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(WORDS)
    writer.add_token_types([CONTROL] * 3 + [NORMAL] * (len(WORDS) - 3))
    writer.add_token_merges(["a b", "Ġ c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, weight in weights.items():
        if name == missing or name == "lm_head.weight":  # tied to the embedding
            continue
        if ".q_proj." in name or ".k_proj." in name:
            weight = interleaved(weight, HEADS if ".q_proj." in name else KV_HEADS)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaForCausalLM, Path]:
    """Return the original model and the directory made from its GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    model = small_llama()
    write_gguf(folder / "small.gguf", model)
    prepare("gguf", folder / "out", {"file": str(folder / "small.gguf")})
    return model, folder / "out" / "model"


@torch.no_grad()
def test_logits_equal_those_of_the_original(made: tuple[LlamaForCausalLM, Path]) -> None:
    original, directory = made
    assert AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).dtype == torch.bfloat16
    again = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=torch.float32)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    tokens = torch.arange(len(WORDS))[None]
    # The weights are the same numbers: bf16 to fp32 is exact. Sums of 64 and 128 terms in each layer.
    tolerance = of_sum(torch.float32, LAYERS * (4 * 64 + 3 * 128))
    torch.testing.assert_close(again(tokens).logits, original(tokens).logits, **tolerance)


def test_tokenizer_chat_template_and_end_token_are_converted(made: tuple[LlamaForCausalLM, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made[1], local_files_only=True)
    generation = GenerationConfig.from_pretrained(made[1])
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (generation.eos_token_id, generation.pad_token_id) == (2, 2)
    chat: list[Any] = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|im_start|>ab<|im_end|>"
    assert tokenizer.tokenize("ab 12 c<|im_end|>") == ["ab", "Ġ", "1", "2", "Ġc", "<|im_end|>"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("nowhere.gguf", "no GGUF file at"),
        ("text.gguf", "transformers cannot read it"),
        ("pre.gguf", "split 'other' is not supported"),
        ("missing.gguf", r"its tensors are not those of a llama: model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_unsupported_files_raise(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "text.gguf").write_text("not a model")
    if file == "pre.gguf":
        write_gguf(tmp_path / file, small_llama(), pre="other")
    if file == "missing.gguf":
        write_gguf(tmp_path / file, small_llama(), missing="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(UsageError, match=message):
        prepare("gguf", tmp_path / "out", {"file": str(tmp_path / file)})
    assert not (tmp_path / "out" / "model").exists()
