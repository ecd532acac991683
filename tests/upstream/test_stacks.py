"""The stacks compared with the metadata of their releases."""

from __future__ import annotations

from collections.abc import Sequence
from email.parser import HeaderParser

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from vimectl.patches import content, series
from vimectl.patches.blobs import blob_id
from vimectl.patches.releases import finder
from vimectl.patches.releases.index import last_listing
from vimectl.stacks.catalog import load_stack, stack_names

pytestmark = pytest.mark.needs("network")

TESTED = [name for name in stack_names() if load_stack(name).tested]
ASCEND = [name for name in stack_names() if load_stack(name).stack.device == "npu"]
# The release matrix has another build than the metadata; the notes of the stack say so.
REPLACED = {
    "ascend-0.11": {"torch-npu": "==2.7.1"},
    "ascend-0.18": {"torch-npu": "==2.9.0", "triton-ascend": "==3.2.0"},
}
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
TRANSFORMERS = (
    *("4.55.2", "4.56.0", "4.57.1", "4.57.3", "4.57.4", "4.58.0"),
    *("5.0.0", "5.5.3", "5.5.4", "5.14.1", "6.0.0"),
)


@pytest.mark.parametrize("name", TESTED)
def test_series_of_a_tested_stack_start_from_the_released_sources(name: str) -> None:
    for package, version in load_stack(name).series:
        one = series.load(package, version)
        release = finder.find(package, version)
        for path, chain in one.chains.items():
            found = content.stages(one, path, release.read(path))
            assert [None if c is None else blob_id(c) for c in found] == chain, f"{name}: {path}"


@pytest.mark.parametrize("name", ASCEND)
def test_versions_match_the_release_metadata(name: str) -> None:
    loaded = load_stack(name)
    release = finder.find("vllm-ascend", loaded.packages["vllm-ascend"])
    (path,) = [p for p in release.paths() if p == "PKG-INFO" or p.endswith(".dist-info/METADATA")]
    metadata = HeaderParser().parsestr(release.read(path).decode())
    required = {
        canonicalize_name(requirement.name): requirement.specifier
        for requirement in map(Requirement, metadata.get_all("Requires-Dist"))
    }
    expected = {
        package: SpecifierSet(REPLACED.get(name, {}).get(package, f"=={loaded.packages[package]}"))
        for package in ("torch", "torch-npu", "triton-ascend")
        if package in loaded.packages
    }
    assert {package: required[package] for package in expected} == expected
    assert ("triton-ascend" in loaded.packages) == ("triton-ascend" in required)
    assert _narrower(loaded.ranges["transformers"], required["transformers"])
    assert _narrower(loaded.stack.python, SpecifierSet(metadata["Requires-Python"]), PYTHONS)


@pytest.mark.parametrize("name", [name for name in ASCEND if name != "ascend-0.30"])
def test_release_has_wheels_for_the_machines_of_the_stack(name: str) -> None:
    loaded = load_stack(name)
    wanted = Version(loaded.packages["vllm-ascend"])
    finder.versions("vllm-ascend")
    files = [file.name for file in last_listing("vllm-ascend") if file.name.endswith(".whl")]
    ours = [file for file in files if Version(file.split("-")[1]) == wanted]
    machines = {machine for file in ours for machine in ("aarch64", "x86_64") if machine in file}
    assert machines == set(loaded.stack.machines)


def _narrower(ours: str, theirs: SpecifierSet, edges: Sequence[str] = TRANSFORMERS) -> bool:
    """Return True when every version in ``edges`` that is in ``ours`` is also in ``theirs``."""
    mine = SpecifierSet(ours)
    return all(edge in theirs for edge in edges if edge in mine)
