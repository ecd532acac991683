"""The kind ``gguf``: a Hugging Face directory from one GGUF file, dequantised to bf16."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from vime_runtime.prepare.warmup import Report
from vime_runtime.spec.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """What ``[prepare.settings]`` may say: the path of the GGUF file."""

    file: str = ""

    max_steps: ClassVar[int] = 4


# A GGUF file names the way its tokenizer splits text before merging; transformers leaves that out. Of the
# ways there are, these two are known here: what comes before the byte-level split.
SPLITS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "gpt-2": [],
    "smollm": [pre_tokenizers.Digits(individual_digits=True)],
}


def make(out_dir: Path, settings: Settings, report: Report) -> None:
    """Write ``out_dir/model``: weights, tokenizer, chat template and generation settings.

    Raises:
        UsageError: the file is not there, is no GGUF file, or is of a model that cannot be rebuilt from it.
    """
    file = Path(settings.file)
    if not file.is_file():
        raise UsageError(f"no GGUF file at {settings.file!r}", "set prepare.settings.file")
    report(1, "reading the tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        _split_as_told(tokenizer, file)
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        report(2, f"dequantising the weights of {file.name}")
        tensors = _tensors(file, config)
    except ImportError as e:
        raise UsageError(f"{file}: {e}", "install the package gguf") from e
    except (OSError, ValueError, KeyError, NotImplementedError) as e:
        raise UsageError(f"{file}: transformers cannot read it: {e}", "give another GGUF file") from e
    report(3, "building the model")
    model = _model(config, tensors, file)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    report(4, "writing the model")
    model.save_pretrained(out_dir / "model")
    tokenizer.save_pretrained(out_dir / "model")


def _tensors(file: Path, config: Any) -> dict[str, torch.Tensor]:
    """Every tensor of the file in fp32, under its Hugging Face name and with that layout.

    GGUF stores the rows of Llama's query and key projections in another order; transformers undoes that.
    """
    # Not from_pretrained: that needs accelerate, and gives a model that counts as quantised.
    with torch.device("meta"):
        names = AutoModelForCausalLM.from_config(config)
    return load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=names)["tensors"]


def _model(config: Any, tensors: dict[str, torch.Tensor], file: Path) -> Any:
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    lacking, strange = model.load_state_dict(tensors, strict=False)
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    if strange or set(lacking) - tied:
        wrong = ", ".join(sorted({*strange, *lacking} - tied)[:3])
        raise UsageError(
            f"{file}: its tensors are not those of a {config.model_type}: {wrong}", "give another file"
        )
    model.tie_weights()
    return model


def _split_as_told(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    from gguf import GGUFReader

    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    name = field.contents() if field else "gpt-2"
    if name not in SPLITS:
        raise UsageError(
            f"{file}: its tokenizer splits text in the way {name!r}", f"known are {', '.join(SPLITS)}"
        )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*SPLITS[name], byte_level])
