"""Read released files from pip's index; cached files need no network."""

from __future__ import annotations

import json

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.needs import unavailable
from vimectl.cli import run_cli
from vimectl.patches import series
from vimectl.patches.blobs import blob_id
from vimectl.patches.releases import finder

WORKER = "vllm_ascend/worker/worker.py"


@pytest.mark.needs("network")
@pytest.mark.parametrize(
    ("version", "kind", "blob"),
    [
        ("0.22.1rc1", ".whl", "062b3ecdb3a234dff7d7171689e723eca31762de"),
        ("0.30.0rc2", ".tar.gz", "f78bea963f43b3e98208428975765331976c74c1"),
    ],
)
def test_file_of_a_release(version: str, kind: str, blob: str) -> None:
    try:
        release = finder.find("vllm-ascend", version)
        content = release.read(WORKER)
    except MissingRequirement as e:
        unavailable(e.message)
    assert release.name.endswith(kind)
    assert content is not None
    assert blob_id(content) == blob


@pytest.mark.needs("network")
@pytest.mark.parametrize(
    ("release", "code", "results"),
    [
        ("vllm-ascend==0.23.0", 0, {"exact": 5}),
        ("vllm-ascend==0.30.0rc2", 1, {"offset": 3, "fuzz": 1, "does-not-apply": 1}),
    ],
)
def test_lint_compares_the_shipped_patch_with_a_release(
    release: str, code: int, results: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = series.load("vllm-ascend", "0.23.0").directory
    found = run_cli(["patch", "lint", str(directory), "--against", release, "--json"])
    document = json.loads(capsys.readouterr().out)
    if found == MissingRequirement.exit_code:
        reason = document["error"]["message"]
        unavailable(reason)
    kinds = [hunk["result"] for hunk in document["files"][0]["hunks"]]
    assert (found, {kind: kinds.count(kind) for kind in kinds}) == (code, results)
