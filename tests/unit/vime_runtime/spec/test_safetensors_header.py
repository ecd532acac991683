from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.safetensors_header import StoredTensor, header_bytes, read_directory, read_file


def write(path: Path, *names: str, length: int | None = None) -> None:
    """Write a file of bf16 tensors [2, 3]."""
    header = {
        name: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [12 * i, 12 * (i + 1)]}
        for i, name in enumerate(names)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    size = (len(text) if length is None else length).to_bytes(8, "little")
    path.write_bytes(size + text + bytes(12 * len(names)))


def test_reads_one_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(path, "a", "b")
    assert read_directory(tmp_path) == {name: StoredTensor(path, "BF16", (2, 3)) for name in "ab"}
    assert json.loads(header_bytes(path)).keys() == {"__metadata__", "a", "b"}


def test_reads_shards_through_the_index(tmp_path: Path) -> None:
    write(tmp_path / "one.safetensors", "a")
    write(tmp_path / "two.safetensors", "b", "not in the index")
    index = {"weight_map": {"b": "two.safetensors", "a": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = read_directory(tmp_path)
    assert {name: tensor.file.name for name, tensor in found.items()} == index["weight_map"]


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "has no weight_map"),
        ({"a": "gone.safetensors"}, r"names the shard gone.safetensors, which does not exist"),
        ({"b": "one.safetensors"}, r"one.safetensors does not contain b"),
    ],
)
def test_refuses_a_wrong_index(tmp_path: Path, weight_map: object, message: str) -> None:
    write(tmp_path / "one.safetensors", "a")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UsageError, match=message):
        read_directory(tmp_path)


def test_refuses_a_directory_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has neither"):
        read_directory(tmp_path)


@pytest.mark.parametrize("length", [3, 2**62])
def test_refuses_a_damaged_header(tmp_path: Path, length: int) -> None:
    write(tmp_path / "x.safetensors", "a", length=length)
    with pytest.raises(UsageError, match="is not a safetensors file"):
        read_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize("change", [lambda content: content + b"!", lambda content: content[:-1]])
def test_refuses_a_file_of_the_wrong_size(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.safetensors"
    write(path, "a")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UsageError, match=r"has \d+ bytes; its header calls for \d+"):
        read_file(path)
