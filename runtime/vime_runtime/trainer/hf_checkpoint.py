"""A model as a Hugging Face directory: config.json, weights in one or more safetensors files, tokenizer."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vime_runtime.spec.atomic_io import unify_permissions
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.model_directory import CONFIG_FILE, read_model_directory
from vime_runtime.spec.safetensors_header import INCOMPLETE, INDEX_FILE, WEIGHTS_FILE

SHARD_BYTES = 4 * 1024**3


class HFCheckpoint:
    """A directory opened for reading, with ``family``, ``shape`` and ``tensors`` of its model.

    Raises:
        UsageError: as ``read_model_directory``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        model = read_model_directory(directory)
        self.family, self.shape, self._stored = model.family, model.shape, model.tensors
        self.tensors = self.family.tensors(self.shape)  # name to shape
        self._open_files: dict[Path, Any] = {}

    def read(self, name: str, dim: int, start: int, stop: int) -> Tensor:
        """Read only ``start:stop`` along ``dim`` (0 or 1) of a tensor, in the dtype of the file."""
        file = self._stored[name].file
        if file not in self._open_files:
            self._open_files[file] = safe_open(file, framework="pt")
        stored = self._open_files[file].get_slice(name)
        part: Tensor = stored[start:stop] if dim == 0 else stored[:, start:stop]
        return part


def write(
    directory: Path, source: HFCheckpoint, dtype: torch.dtype, weights: Iterator[tuple[str, Tensor]]
) -> None:
    """Write a Hugging Face directory and rename it to ``directory`` when it is complete.

    Args:
        directory: the target; an existing one is replaced.
        source: the original model, from which the tokenizer and other small files are copied.
        dtype: dtype of the weights, written to config.json.
        weights: names and full tensors.

    Raises:
        OSError: a file cannot be written.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _copy_small_files(source.directory, partial, dtype)
    shards = split_state_dict_into_shards_factory(
        source.tensors,
        get_storage_size=lambda shape: prod(shape) * dtype.itemsize,
        filename_pattern=WEIGHTS_FILE.replace(".", "{suffix}."),
        max_shard_size=SHARD_BYTES,
    )
    pending: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in weights:
        file = shards.tensor_to_filename[name]
        pending[file][name] = tensor.cpu().clone()
        if len(pending[file]) == len(shards.filename_to_tensors[file]):
            try:
                save_file(pending.pop(file), partial / file, metadata={"format": "pt"})
            except SafetensorError as e:
                raise OSError(0, str(e), str(partial / file)) from e
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        (partial / INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")
    unify_permissions(partial)
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


def _copy_small_files(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Copy everything but the weights, and set the dtype in config.json."""
    for path in source.iterdir():
        small = path.is_file() and path.suffix in {".json", ".jinja", ".txt", ".model"}
        if small and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)
    config = read_json(target / CONFIG_FILE, INCOMPLETE)
    config.pop("torch_dtype", None)  # the key's name before transformers 5
    config["dtype"] = str(dtype).removeprefix("torch.")
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2), encoding="utf-8")
