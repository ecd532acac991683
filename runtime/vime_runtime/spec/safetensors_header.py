"""What a safetensors file or a sharded checkpoint holds, read from the headers alone.

Format: 8 bytes, little-endian, the length N of the header; N bytes of JSON, from tensor name to
``{"dtype", "shape", "data_offsets": [begin, end]}`` counted from the end of the header; the
data. Source: the format section of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

INCOMPLETE = "the checkpoint is incomplete or damaged: copy or download it again"
# The format's own limit; a larger length is not a header but some other file.
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Stored:
    """A tensor as its file describes it: dtype as the format spells it (``BF16``), and its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def read_directory(directory: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint, one file or shards with an index.

    Raises:
        UsageError: no weights, a shard missing, a damaged or truncated file, or an index that is wrong.
    """
    index = directory / INDEX
    if not index.is_file():
        if not (directory / SINGLE).is_file():
            raise UsageError(f"{directory} has neither {SINGLE} nor {INDEX}", "save the model as safetensors")
        return read_file(directory / SINGLE)
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise UsageError(f"{index} has no weight_map", INCOMPLETE)
    shards = {}
    for name in sorted(set(places.values())):
        if not (directory / name).is_file():
            raise UsageError(f"{index} names the shard {name}, which is not there", INCOMPLETE)
        shards[name] = read_file(directory / name)
    for tensor, name in places.items():
        if tensor not in shards[name]:
            raise UsageError(f"{directory / name} does not hold {tensor}, as {index.name} says", INCOMPLETE)
    return {tensor: shards[name][tensor] for tensor, name in places.items()}


def read_file(path: Path) -> dict[str, Stored]:
    """Every tensor of one file. Raises UsageError when it is damaged or shorter than its header says."""
    try:
        text = header_bytes(path)
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {
            name: Stored(path, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()
        }
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, TypeError, KeyError) as e:
        raise UsageError(f"{path} is not a safetensors file: its header cannot be read", INCOMPLETE) from e
    size = path.stat().st_size
    if size != 8 + len(text) + end:
        raise UsageError(f"{path} has {size} bytes; its header calls for {8 + len(text) + end}", INCOMPLETE)
    return tensors


def header_bytes(path: Path) -> bytes:
    """The header of a file as it stands there, JSON if all is well."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, LONGEST_HEADER))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UsageError that names the file and line when it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UsageError(f"{path}: not readable as JSON: {e}", INCOMPLETE) from e
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a JSON object, found {type(document).__name__}", INCOMPLETE)
    return document
