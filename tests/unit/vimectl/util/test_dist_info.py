from __future__ import annotations

import json
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from vimectl.util.dist_info import canonical_name, editable_source, record_hash


def test_hash_of_an_empty_file() -> None:
    # As pip writes it for every empty __init__.py.
    assert record_hash(b"") == "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ({"url": "file:///src/my%20vllm", "dir_info": {"editable": True}}, "/src/my vllm"),
        ({"url": "file:///src/vllm", "dir_info": {}}, None),
        ({"url": "https://host/vllm.whl", "archive_info": {}}, None),
        ([], None),
        ({"url": 5, "dir_info": {"editable": True}}, None),
        ({"url": "file://[", "dir_info": {"editable": True}}, None),
        ({"url": "file:///a%00b", "dir_info": {"editable": True}}, None),
    ],
)
def test_source_of_an_editable_install(content: Any, source: str | None) -> None:
    assert editable_source(json.dumps(content)) == source


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\ud800"])
def test_text_that_is_not_json_has_no_source(text: str) -> None:
    assert editable_source(text) is None


def test_without_the_file_an_install_is_not_editable() -> None:
    assert editable_source(None) is None


@pytest.mark.parametrize("name", ["vLLM", "vllm_ascend", "ruamel.yaml.clib", "a-_.b", "Megatron-Core"])
def test_canonical_name_is_that_of_packaging(name: str) -> None:
    assert canonical_name(name) == canonicalize_name(name)
