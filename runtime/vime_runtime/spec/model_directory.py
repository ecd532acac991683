"""Read a Hugging Face model directory and check it against its ``config.json``, without reading weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.model_families import ModelFamily, family_of
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.safetensors_header import INCOMPLETE, Locate, StoredTensor, read_directory

CONFIG_FILE = "config.json"
# dtypes that can be trained from, as the safetensors format spells them.
DTYPES = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class ModelDirectory:
    """A complete model of a known family. ``tensors`` may include some that the model does not need."""

    family: ModelFamily
    shape: ModelShape
    tensors: dict[str, StoredTensor]


def read_model_directory(directory: Path, locate: Locate | None = None) -> ModelDirectory:
    """Read a directory as ``save_pretrained`` writes it.

    Args:
        locate: see ``read_directory``.

    Raises:
        UsageError: it does not exist, its family is unknown, the model is quantized, or a tensor is missing
            or has another shape or dtype than ``config.json`` requires.
    """
    config_file = (locate or directory.joinpath)(CONFIG_FILE)
    if not directory.is_dir():
        raise UsageError(f"no model directory at {directory}", "give an existing one: --set model.path=DIR")
    if not config_file.is_file():
        raise UsageError(
            f"{directory} has no {CONFIG_FILE}",
            "model.path must name a Hugging Face model directory, as save_pretrained writes it",
        )
    config = read_json(config_file, INCOMPLETE)
    family = family_of(config, str(config_file))
    if "quantization_config" in config:
        raise UsageError(f"{config_file}: the model is quantized", "train from the unquantized checkpoint")
    shape = family.shape(config, str(config_file))
    tensors = read_directory(directory, locate)
    _check_tensors(directory, tensors, family.tensors(shape))
    return ModelDirectory(family, shape, tensors)


def _check_tensors(
    directory: Path, tensors: dict[str, StoredTensor], expected: dict[str, tuple[int, ...]]
) -> None:
    missing = [name for name in expected if name not in tensors]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"{directory} has no tensor {missing[0]}{more}; {CONFIG_FILE} calls for it", INCOMPLETE
        )
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise UsageError(
                f"{tensor.file}: tensor {name} has shape {list(tensor.shape)}; "
                f"{CONFIG_FILE} makes it {list(shape)}",
                f"weights and {CONFIG_FILE} are of different models: take both from one checkpoint",
            )
        if tensor.dtype not in DTYPES:
            raise UsageError(
                f"{tensor.file}: tensor {name} is {tensor.dtype}; supported are {', '.join(DTYPES)}",
                "save the model in bfloat16 or float32",
            )
