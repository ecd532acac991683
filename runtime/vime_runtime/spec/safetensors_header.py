"""Read which tensors a checkpoint holds, from the headers of its safetensors files.

Format: 8 bytes, little-endian, the length N of the header; N bytes of JSON, from tensor name to
``{"dtype", "shape", "data_offsets": [begin, end]}`` relative to the end of the header; the data. Source: the
format section of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.json_files import parse_json, read_json
from vime_runtime.spec.regular_files import open_regular

# Returns the path of a file by its name.
Locate = Callable[[str], Path]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

INCOMPLETE = "the checkpoint is incomplete or damaged: copy or download it again"
# The format's limit. A file with a larger length is not a safetensors file.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file describes it. ``dtype`` is spelled as in the format ("BF16")."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def read_directory(directory: Path, locate: Locate | None = None) -> dict[str, StoredTensor]:
    """Return every tensor of a checkpoint: one file, or shards with an index.

    Args:
        locate: returns where to read a file of the directory, by name; default: in it.

    Raises:
        UsageError: no weights, a missing shard, a damaged or truncated file, or a wrong index.
    """
    locate = locate or directory.joinpath
    index = locate(INDEX_FILE)
    if not index.is_file():
        if not locate(WEIGHTS_FILE).is_file():
            raise UsageError(
                f"{directory} has neither {WEIGHTS_FILE} nor {INDEX_FILE}", "save the model as safetensors"
            )
        return read_file(locate(WEIGHTS_FILE))
    files = read_json(index, INCOMPLETE).get("weight_map")
    if not isinstance(files, dict) or not all(map(_is_file_name, files.values())):
        raise UsageError(f"{index} has no weight_map with a file for each tensor", INCOMPLETE)
    shards = {}
    for name in sorted(set(files.values())):
        if not locate(name).is_file():
            raise UsageError(f"{index} names the shard {name}, which does not exist", INCOMPLETE)
        shards[name] = read_file(locate(name))
    for tensor, name in files.items():
        if tensor not in shards[name]:
            raise UsageError(
                f"{directory / name} does not contain {tensor}, contrary to {index.name}", INCOMPLETE
            )
    return {tensor: shards[name][tensor] for tensor, name in files.items()}


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\0"} & set(name)


def read_file(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor of one file. Raises UsageError if it is damaged or has the wrong size."""
    try:
        text = header_bytes(path)
        header = parse_json(text)
        header.pop("__metadata__", None)
        tensors = {
            name: StoredTensor(path, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()
        }
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        size = path.stat().st_size
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}", INCOMPLETE) from e
    except (ValueError, AttributeError, TypeError, KeyError, IndexError) as e:
        raise UsageError(f"{path} is not a safetensors file: its header cannot be read", INCOMPLETE) from e
    if size != 8 + len(text) + end:
        raise UsageError(f"{path} has {size} bytes; its header calls for {8 + len(text) + end}", INCOMPLETE)
    return tensors


def header_bytes(path: Path) -> bytes:
    """Return the header of a file. Its content is not checked."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, MAX_HEADER_BYTES))
