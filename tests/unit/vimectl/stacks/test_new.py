"""Facts from the documents of a release; tests/upstream/test_stacks.py reads those of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from vimectl.stacks.catalog import load_stack
from vimectl.stacks.new import ReleaseFacts, read_facts, stack_text

METADATA = """\
Metadata-Version: 2.4
Name: vllm_ascend
Version: 0.31.0rc1
Requires-Dist: torch==2.10.0
Requires-Dist: torch-npu==2.10.0.post4
Requires-Dist: triton-ascend==3.2.2
Requires-Dist: transformers==5.14.1
"""
MATRIX = """\
| vLLM Ascend | vLLM    | Python          | Stable CANN | PyTorch/torch_npu     | Triton Ascend |
|-------------|---------|-----------------|-------------|-----------------------|---------------|
| v0.31.0rc1  | v0.31.0 | >= 3.10, < 3.13 | 9.2.0       | 2.10.0 / 2.10.0.post4 | 3.2.2         |
| v0.30.0rc1  | v0.30.0 | >= 3.10, < 3.13 | 9.1.0       | 2.10.0 / 2.10.0.post2 | 3.2.1         |
"""
GUIDE = """\
- Python: >= 3.10, < 3.13

        | Software | Supported version |
        | CANN     | == 9.2.0          |
        | NNAL     | == 9.2.0          |
"""
DOCKERFILE = """\
ARG CANN_VERSION="9.2.0"
FROM quay.io/ascend/cann:${CANN_VERSION}-910b-ubuntu22.04-py3.12
ARG VLLM_TAG=v0.31.0
ARG TORCH_NPU_VERSION
RUN pip install 'ray>=2.47.1,<=2.48.0'
"""
MATRIX_PATH, GUIDE_PATH = "docs/source/community/versioning_policy.md", "docs/source/installation.md"
WORKFLOW_PATH = ".github/workflows/_schedule_image_build.yaml"
DOCUMENTS = {
    "PKG-INFO": METADATA,
    MATRIX_PATH: MATRIX,
    GUIDE_PATH: GUIDE,
    "Dockerfile": DOCKERFILE,
    "mkdocs.yml": "extra:\n  vllm_ascend_version: v0.31.0rc1\n",
    WORKFLOW_PATH: "- {runner: a, tag: arm64}\n- {runner: b, tag: amd64}\n",
}
WHEELS = [f"vllm_ascend-0.31.0rc1-cp312-cp312-manylinux_2_34_{m}.whl" for m in ("aarch64", "x86_64")]


def facts_of(changed: dict[str, str] | None = None, wheels: list[str] = WHEELS) -> ReleaseFacts:
    documents = DOCUMENTS | (changed or {})

    def read(path: str) -> bytes | None:
        return documents[path].encode() if path in documents else None

    return read_facts("0.31.0rc1", read, [*wheels, "vllm_ascend-0.31.0rc1.tar.gz"])


def test_stack_file_has_every_fact_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = stack_text("ascend-0.31", facts_of(), {"vllm": ["0.30.0"]}, "series of vllm 0.30.0")
    file.write_text(text)
    stack = load_stack(str(file))
    assert stack.packages == {
        "vllm": "0.31.0",
        "vllm-ascend": "0.31.0rc1",
        "torch": "2.10.0",
        "torch-npu": "2.10.0.post4",
        "triton-ascend": "3.2.2",
    }
    assert (stack.cann, stack.nnal, stack.stack.python) == ("9.2.0", "9.2.0", ">=3.10,<3.13")
    assert stack.ranges == {"ray": ">=2.47.1,<=2.48.0", "transformers": "==5.14.1"}
    assert stack.images
    assert stack.images.a3 == "quay.io/ascend/vllm-ascend:v0.31.0rc1-a3"
    assert stack.stack.machines == ["aarch64", "x86_64"]
    assert stack.tested


def test_documents_of_an_earlier_release_are_not_used() -> None:
    # As in 0.28.0rc1: no row, and guides that are filled with the versions of another release.
    facts = facts_of(
        {
            MATRIX_PATH: "",
            GUIDE_PATH: "| NNAL | {{ release_nnal_version }} |",
            "mkdocs.yml": (
                "extra:\n  vllm_ascend_version: v0.30.0rc1\n  release_nnal_version: '9.1.0'\n"
                '  main_python_version: ">= 3.10, < 3.13"\n'
            ),
        },
        wheels=[],
    )
    assert facts.packages["vllm"] == "0.31.0"
    assert facts.cann == "9.2.0"
    assert facts.notes["cann"] == "base image of the Dockerfile of vllm-ascend 0.31.0rc1"
    assert facts.machines == ["aarch64", "x86_64"]
    assert facts.images == {}
    assert facts.nnal == ""
    assert facts.unrecorded.keys() >= {"nnal", "images"}
    assert "source archive only" in facts.notes["vllm-ascend"]


@pytest.mark.parametrize(
    ("path", "old", "new", "found"),
    [
        ("Dockerfile", "=v0.31.0", "=v0.30.0", "packages: its Dockerfile has VLLM_TAG v0.30.0"),
        (MATRIX_PATH, "2.10.0.post4", "2.10.0", "packages: the matrix has torch-npu 2.10.0"),
        (
            "Dockerfile",
            'VERSION="9.2.0"',
            'VERSION="9.1.0"',
            "cann: its Dockerfile starts from quay.io/ascend/cann:9.1.0-910b-ubuntu22.04-py3.12",
        ),
        (
            "Dockerfile",
            "ARG TORCH_NPU_VERSION",
            'ARG TORCH_NPU_VERSION="26.2.0"',
            "packages: its Dockerfile installs another torch-npu, 26.2.0",
        ),
    ],
)
def test_documents_that_disagree_are_in_the_notes(path: str, old: str, new: str, found: str) -> None:
    facts = facts_of({path: DOCUMENTS[path].replace(old, new)})
    assert facts.disagreements == [found]
    fact, _, text = found.partition(": ")
    assert text in facts.notes[fact]


def test_missing_facts_are_named() -> None:
    documents = dict.fromkeys((MATRIX_PATH, GUIDE_PATH, "Dockerfile", WORKFLOW_PATH), "")
    with pytest.raises(CheckFailed, match="does not state: vllm, python, machines"):
        facts_of(documents, wheels=[])
