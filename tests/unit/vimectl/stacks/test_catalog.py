from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from vime_runtime.spec.errors import UsageError

from vimectl.env.memory_saver.known_builds import known_builds
from vimectl.patches import series
from vimectl.stacks.catalog import load_stack, load_summary, lock_path, stack_names
from vimectl.stacks.lock import read_lock
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches
from vimectl.util import toml

LOCKED = [name for name in stack_names() if lock_path(name)]


@pytest.mark.parametrize("name", stack_names())
def test_stack_file_is_valid_and_has_its_own_name(name: str) -> None:
    loaded = load_stack(name)
    assert loaded.name == name
    for version in loaded.packages.values():
        Version(version)
    summary = load_summary(name)
    for table in ("packages", "ranges", "provided_by"):
        assert getattr(summary, table) == getattr(loaded, table)
    assert {package: list(entries) for package, entries in summary.patches.items()} == loaded.patches


@pytest.mark.parametrize("name", stack_names())
def test_series_and_builds_of_a_stack_exist(name: str) -> None:
    loaded = load_stack(name)
    for package, version in loaded.series:
        assert series.load(package, version).package == package
    if saver := loaded.memory_saver:
        assert set(saver.builds) <= {build.name for build in known_builds()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": {}}, "no note says where these come from: vllm"),
        ({"unrecorded": {}}, r"neither recorded nor in \[unrecorded\].*: megatron-lm"),
        ({"nnal": None}, r"with the reason: nnal"),
        ({"ranges": {"ray": "2.48"}}, "'ranges.ray'"),
        ({"images": {"a2": "x"}}, "missing key 'images.a3'"),
    ],
)
def test_fact_without_source_or_reason_is_refused(change: dict[str, Any], message: str) -> None:
    data = load_stack("ascend-0.23").model_dump() | change
    with pytest.raises(UsageError, match=message):
        toml.validate(Stack, data, "stack")


def test_unknown_stack_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"cpu-0\.32"):
        load_stack("cpu-0.3")


MACHINES = [(name, machine) for name in LOCKED for machine in load_stack(name).stack.machines]


@pytest.mark.parametrize(("name", "machine"), MACHINES)
def test_lock_has_the_packages_and_files_of_its_stack(name: str, machine: str) -> None:
    loaded, lock = load_stack(name), read_lock(lock_path(name), machine)
    listed = {package: origin.files_for(machine) for package, origin in loaded.origin.items()}
    for package, version in loaded.packages.items():
        distribution = loaded.distributions(package)[0]
        if listed.get(package) == []:
            assert distribution not in lock
        else:
            assert matches(lock[distribution].version, version)
    for package, files in listed.items():
        assert not files or lock[package].hashes == {file.sha256 for file in files}
    assert not (loaded.unwanted | loaded.omitted | loaded.lock_without).keys() & lock.keys()


@pytest.mark.parametrize(("name", "machine"), MACHINES)
def test_lock_accepts_one_file_of_a_package_that_is_built_from_source(name: str, machine: str) -> None:
    lock = read_lock(lock_path(name), machine)
    assert all(len(lock[package].hashes) == 1 for package in load_stack(name).sources)
    # What builds of the commits need, with versions that they accept.
    for commit in load_stack(name).commits.values():
        for requirement in map(Requirement, commit.build_requires):
            assert lock[requirement.name].version in requirement.specifier


@pytest.mark.parametrize("name", LOCKED)
def test_lock_names_no_source(name: str) -> None:
    text = lock_path(name).read_text()
    assert "://" not in text
    assert "--find-links" not in text
    assert "--index" not in text
