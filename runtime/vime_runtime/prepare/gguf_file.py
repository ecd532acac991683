"""The kind ``gguf``: a Hugging Face directory from one GGUF file, dequantized to bf16."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from vime_runtime.prepare import ReportProgress
from vime_runtime.spec.atomic_io import unify_permissions
from vime_runtime.spec.errors import UsageError


@dataclass(frozen=True)
class GgufSettings:
    """Keys of ``[prepare.settings]``: the path of the GGUF file."""

    file: str = ""

    max_steps: ClassVar[int] = 4


# How a tokenizer splits text before merging, by the name in the GGUF file, which transformers ignores. A
# byte-level split follows.
SPLITS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "gpt-2": [],
    "smollm": [pre_tokenizers.Digits(individual_digits=True)],
}


def make(out_dir: Path, settings: GgufSettings, report: ReportProgress) -> None:
    """Write ``out_dir/model``: weights, tokenizer, chat template and generation settings.

    Raises:
        UsageError: the file does not exist, is no GGUF file, or is of a model that is not supported.
    """
    file = Path(settings.file)
    if not file.is_file():
        raise UsageError(f"no GGUF file at {settings.file!r}", "set prepare.settings.file")
    report(1, "reading the tokenizer")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(  # nosec B615 # local files
            file.parent, gguf_file=file.name, local_files_only=True
        )
        _set_split(tokenizer, file)
        # Local files, as above.
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)  # nosec B615
        report(2, f"dequantizing the weights of {file.name}")
        tensors = _read_tensors(file, config)
    except ImportError as e:
        raise UsageError(f"{file}: {e}", "install the package gguf") from e
    except (OSError, ValueError, KeyError, NotImplementedError) as e:
        raise UsageError(f"{file}: transformers cannot read it: {e}", "use another GGUF file") from e
    report(3, "building the model")
    model = _build_model(config, tensors, file)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    report(4, "writing the model")
    model.save_pretrained(out_dir / "model")
    tokenizer.save_pretrained(out_dir / "model")
    unify_permissions(out_dir / "model")


def _set_split(tokenizer: Any, file: Path) -> None:
    """Set the tokenizer's split of text to that of the file. Raises UsageError for an unsupported one."""
    from gguf import GGUFReader

    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    name = field.contents() if field else "gpt-2"
    if name not in SPLITS:
        raise UsageError(
            f"{file}: the tokenizer's split {name!r} is not supported", f"supported are {', '.join(SPLITS)}"
        )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*SPLITS[name], byte_level])


def _read_tensors(file: Path, config: Any) -> dict[str, torch.Tensor]:
    """Return every tensor in fp32 with Hugging Face name and layout.

    GGUF stores the rows of Llama's query and key projections in another order; transformers reverses that.
    """
    # from_pretrained is no alternative: it needs accelerate, and the model would count as quantized.
    with torch.device("meta"):
        names = AutoModelForCausalLM.from_config(config)
    tensors: dict[str, torch.Tensor] = load_gguf_checkpoint(
        str(file), return_tensors=True, model_to_load=names
    )["tensors"]
    return tensors


def _build_model(config: Any, tensors: dict[str, torch.Tensor], file: Path) -> Any:
    """Return the model in bf16. Raises UsageError if the tensors are not those of its configuration."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    wrong = sorted({*unexpected, *missing} - tied)
    if wrong:
        raise UsageError(
            f"{file}: its tensors are not those of a {config.model_type}: {', '.join(wrong[:3])}",
            "use another file",
        )
    model.tie_weights()
    return model
