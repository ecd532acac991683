"""Reading released files from the index that pip is configured with; what has come once needs no network."""

from __future__ import annotations

import os

import pytest

from vimectl.errors import MachineLacks
from vimectl.patching import releases
from vimectl.patching.blobs import blob_id

WORKER = "vllm_ascend/worker/worker.py"


@pytest.mark.network
@pytest.mark.parametrize(
    ("version", "kind", "blob"),
    [
        ("0.22.1rc1", ".whl", "062b3ecdb3a234dff7d7171689e723eca31762de"),
        ("0.30.0rc2", ".tar.gz", "f78bea963f43b3e98208428975765331976c74c1"),
    ],
)
def test_a_file_of_a_release(version: str, kind: str, blob: str) -> None:
    try:
        release = releases.find("vllm-ascend", version)
        content = release.read(WORKER)
    except MachineLacks as e:
        pytest.fail(e.message) if os.environ.get("CI") else pytest.skip(e.message)
    assert release.name.endswith(kind)
    assert content is not None
    assert blob_id(content) == blob
