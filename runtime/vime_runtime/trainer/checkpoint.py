"""A model as a Hugging Face directory: config.json, safetensors in one file or several, tokenizer."""

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

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.model_families import ModelFamily, family_of
from vime_runtime.spec.model_shape import ModelShape

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4 * 1024**3


class Checkpoint:
    """The weights of a directory, opened for reading; every tensor the family names is there and fits.

    Raises UsageError when something is missing, malformed or misshapen.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = _read_json(directory / CONFIG)
        where = str(directory / CONFIG)
        self.family: ModelFamily = family_of(self.config, where)
        self.shape: ModelShape = self.family.shape(self.config, where)
        self._files: dict[Path, Any] = {}
        self._where = _locate(directory)
        for name, shape in self.tensors().items():
            self._check(name, shape)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor the model consists of."""
        return self.family.tensors(self.shape)

    def read(self, name: str, dim: int, start: int, stop: int) -> Tensor:
        """Rows ``start:stop`` along ``dim`` (0 or 1), in the dtype of the file; nothing else is read."""
        part = self._open(name).get_slice(name)
        return part[start:stop] if dim == 0 else part[:, start:stop]

    def _check(self, name: str, expected: tuple[int, ...]) -> None:
        if name not in self._where:
            raise UsageError(
                f"{self.directory} has no tensor {name}, which its {CONFIG} calls for",
                "the checkpoint is incomplete: copy or download it again",
            )
        found = tuple(self._open(name).get_slice(name).get_shape())
        if found != expected:
            raise UsageError(
                f"tensor {name} in {self._where[name]} is {list(found)}; {CONFIG} makes it {list(expected)}",
                "weights and config.json are not of the same model",
            )

    def _open(self, name: str) -> Any:
        path = self._where[name]
        if path not in self._files:
            self._files[path] = _open_file(path)
        return self._files[path]


def write(
    directory: Path,
    source: Path,
    dtype: torch.dtype,
    sizes: dict[str, int],
    weights: Iterator[tuple[str, Tensor]],
) -> None:
    """Write a Hugging Face directory; it appears under its name only when it is complete.

    Args:
        directory: where to; replaced when it exists.
        source: the directory the model came from; its tokenizer and other small files are copied.
        dtype: of the weights, noted in config.json.
        sizes: bytes of every tensor, in the order in which ``weights`` yields them.
        weights: names and full tensors.

    Raises:
        OSError: a file cannot be written.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _copy_small_files(source, partial, dtype)
    groups = _plan_files(sizes)
    index = {}
    for number, names in enumerate(groups, start=1):
        file = WEIGHTS if len(groups) == 1 else f"model-{number:05}-of-{len(groups):05}.safetensors"
        held = {name: tensor.cpu().clone() for name, tensor in islice(weights, len(names))}
        try:
            save_file(held, partial / file, metadata={"format": "pt"})
        except SafetensorError as e:
            raise OSError(0, str(e), str(partial / file)) from e
        index |= dict.fromkeys(held, file)
    if len(groups) > 1:
        document = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        (partial / INDEX).write_text(json.dumps(document, indent=2), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


def _copy_small_files(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Copy everything but weights, and note the dtype of the weights to come."""
    for path in source.iterdir():
        small = path.is_file() and path.suffix in {".json", ".jinja", ".txt", ".model"}
        if small and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)
    config = _read_json(target / CONFIG)
    config.pop("torch_dtype", None)  # the key's name before transformers 5
    config["dtype"] = str(dtype).removeprefix("torch.")
    (target / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def _plan_files(sizes: dict[str, int]) -> list[list[str]]:
    """Split the tensors, in order, into files of at most SHARD_BYTES; a larger tensor has one of its own."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def _locate(directory: Path) -> dict[str, Path]:
    """Which file holds each tensor."""
    index = directory / INDEX
    if index.exists():
        return {name: directory / file for name, file in _read_json(index)["weight_map"].items()}
    path = directory / WEIGHTS
    if not path.exists():
        raise UsageError(
            f"{directory} has neither {WEIGHTS} nor {INDEX}",
            "model.path must be a Hugging Face directory with safetensors weights",
        )
    with _open_file(path) as file:
        return dict.fromkeys(file.keys(), path)


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as e:
        raise UsageError(f"{path} cannot be read: {e}", "copy or download the file again") from e


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UsageError(
            f"{path.parent} has no {path.name}", "model.path must be a Hugging Face directory"
        ) from e
    except ValueError as e:
        raise UsageError(f"{path} is not JSON: {e}", "copy or download the file again") from e
