"""A model as a Hugging Face directory: config.json, weights in one or more safetensors files, tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.model_directory import CONFIG_FILE, read_model_directory
from vime_runtime.spec.safetensors_header import INCOMPLETE, INDEX_FILE, WEIGHTS_FILE

SHARD_BYTES = 4 * 1024**3


class HFCheckpoint:
    """A directory opened for reading, with ``family`` and ``shape`` of its model.

    Raises:
        UsageError: as ``read_model_directory``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        model = read_model_directory(directory)
        self.family, self.shape, self._stored = model.family, model.shape, model.tensors
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
    directory: Path,
    source: Path,
    dtype: torch.dtype,
    sizes: dict[str, int],
    weights: Iterator[tuple[str, Tensor]],
) -> None:
    """Write a Hugging Face directory and rename it to ``directory`` when it is complete.

    Args:
        directory: the target; an existing one is replaced.
        source: directory of the original model, from which the tokenizer and other small files are copied.
        dtype: dtype of the weights, written to config.json.
        sizes: bytes of every tensor, in the order in which ``weights`` yields them.
        weights: names and full tensors.

    Raises:
        OSError: a file cannot be written.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _copy_small_files(source, partial, dtype)
    shards = _split_into_shards(sizes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS_FILE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {name: tensor.cpu().clone() for name, tensor in islice(weights, len(names))}
        try:
            save_file(tensors, partial / file, metadata={"format": "pt"})
        except SafetensorError as e:
            raise OSError(0, str(e), str(partial / file)) from e
        weight_map |= dict.fromkeys(tensors, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (partial / INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")
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


def _split_into_shards(sizes: dict[str, int]) -> list[list[str]]:
    """Split the tensors, in order, into files of at most SHARD_BYTES; a larger tensor has its own file."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards
