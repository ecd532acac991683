"""The stacks compared with the metadata of their releases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from harness.upstream import released
from vimectl.cli import run_cli
from vimectl.patches import release_finder, series
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.stacks.new import read_facts, stack_text

pytestmark = pytest.mark.needs("network")

_NPU = [name for name in stack_names() if load_stack(name).stack.device == "npu"]
# A release without wheels is downloaded as a whole: make test-releases does that.
ASCEND = [
    pytest.param(name, marks=pytest.mark.exhaustive if "vllm-ascend" in load_stack(name).notes else ())
    for name in _NPU
]
# Whose stack files stack new wrote.
WRITTEN = [name for name in _NPU if load_stack(name).notes["packages"].startswith("documents in the")]
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


@pytest.mark.parametrize("name", ASCEND)
def test_versions_match_the_release_metadata(name: str) -> None:
    loaded = load_stack(name)
    release = release_finder.find("vllm-ascend", loaded.packages["vllm-ascend"])
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


@pytest.mark.parametrize("name", [name for name in _NPU if "vllm-ascend" not in load_stack(name).notes])
def test_release_has_wheels_for_the_machines_of_the_stack(name: str) -> None:
    loaded = load_stack(name)
    wanted = loaded.packages["vllm-ascend"]
    files = [file.name for file in release_finder.files_of("vllm-ascend", wanted) if file.kind == "wheel"]
    machines = {machine for file in files for machine in ("aarch64", "x86_64") if machine in file}
    assert machines == set(loaded.stack.machines)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", WRITTEN)
def test_facts_are_those_of_the_source_archive(name: str, tmp_path: Path) -> None:
    loaded = load_stack(name)
    version = loaded.packages["vllm-ascend"]
    archive = release_finder.find("vllm-ascend", version, kinds=("sdist",))
    names = [file.name for file in release_finder.files_of("vllm-ascend", version)]
    facts = read_facts(version, archive.read, names)
    text = stack_text(name, facts, loaded.patches, loaded.notes["patches"])
    (tmp_path / "stack.toml").write_text(text)
    assert load_stack(str(tmp_path / "stack.toml")).model_dump() == loaded.model_dump()


@pytest.mark.exhaustive
def test_stack_of_another_release_is_written_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["stack", "new", "mine", "--vllm-ascend", "0.17.0rc1", "--out", str(tmp_path), "--json"]
    assert run_cli(command) == 0
    made = json.loads(capsys.readouterr().out)
    assert {one["package"]: (one["source"], one["result"]) for one in made["series"]} == {
        "vllm": ("0.20.2", "ported"),
        "vllm-ascend": ("0.18.0", "ported"),
    }
    target = tmp_path / "target"
    for package, version in released.versions_of(made["path"]).items():
        one = series.read(tmp_path / "patches" / package / version)
        released.fetch_touched(package, version, [*one.chains, f"{one.module}/__init__.py"], target)
    for command in ("apply", "verify", "revert"):
        assert run_cli(["patch", command, "--stack", made["path"], "--target", str(target)]) == 0


@pytest.mark.exhaustive
def test_conflicts_of_a_new_stack_name_the_command_that_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["stack", "new", "mine", "--vllm-ascend", "0.13.0", "--out", str(tmp_path)]) == 1
    folder = tmp_path / "patches" / "vllm" / "0.13.0"
    message = "".join(capsys.readouterr().err.split())
    command = (
        f"vimectl patch port vllm --from 0.20.2 --to 0.13.0 --out {folder} --resolved {folder}.conflicts"
    )
    assert command.replace(" ", "") in message
    assert load_stack(str(tmp_path / "mine.toml")).patches["vllm"] == [str(folder)]


def _narrower(ours: str, theirs: SpecifierSet, edges: Sequence[str] = TRANSFORMERS) -> bool:
    """Return True when every version in ``edges`` that is in ``ours`` is also in ``theirs``."""
    mine = SpecifierSet(ours)
    return all(edge in theirs for edge in edges if edge in mine)
