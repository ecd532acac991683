from typing import Any

import pytest
from packaging.version import Version
from vime_runtime.spec.errors import UsageError

from vimectl.env.memory_saver.known_builds import known_builds
from vimectl.patches import series
from vimectl.stacks.catalog import load_stack, lock_path, stack_names
from vimectl.stacks.lock import read_lock
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import distance, matches, relation, within
from vimectl.util import toml

# vllm-ascend, vllm, python, CANN, torch, torch-npu and triton-ascend of every release since 0.11.0, from the
# project's release matrix.
MATRIX = """
0.23.0     0.23.0  >=3.10,<3.13  9.1.0    2.10.0  2.10.0.post4            3.2.2
0.23.0rc1  0.23.0  >=3.10,<3.13  9.0.1    2.10.0  2.10.0.post2            3.2.1
0.22.1rc1  0.22.1  >=3.10,<3.13  9.0.0    2.10.0  2.10.0                  3.2.1
0.21.0rc1  0.21.0  >=3.10,<3.13  9.0.0    2.10.0  2.10.0                  3.2.1
0.20.2rc1  0.20.2  >=3.10,<3.12  9.0.0    2.10.0  2.10.0                  3.2.1
0.19.1rc1  0.19.1  >=3.10,<3.12  8.5.1    2.9.0   2.9.0                   3.2.0
0.18.0     0.18.0  >=3.10,<3.12  8.5.1    2.9.0   2.9.0.post1+git4c901a4  3.2.0.dev20260322
0.18.0rc1  0.18.0  >=3.10,<3.12  8.5.1    2.9.0   2.9.0                   3.2.0
0.17.0rc1  0.17.0  >=3.10,<3.12  8.5.1    2.9.0   2.9.0                   3.2.0
0.16.0rc1  0.16.0  >=3.10,<3.12  8.5.1    2.9.0   2.9.0                   3.2.0
0.15.0rc1  0.15.0  >=3.10,<3.12  8.5.0    2.9.0   2.9.0                   3.2.0
0.14.0rc1  0.14.1  >=3.10,<3.12  8.5.0    2.9.0   2.9.0                   3.2.0
0.13.0     0.13.0  >=3.10,<3.12  8.5.0    2.8.0   2.8.0.post2             3.2.0
0.12.0rc1  0.12.0  >=3.10,<3.12  8.3.RC2  2.8.0   2.8.0                   -
0.11.0     0.11.0  >=3.9,<3.12   8.3.RC2  2.7.1   2.7.1.post1             -
"""
LOCKED = [name for name in stack_names() if lock_path(name)]


@pytest.mark.parametrize("name", stack_names())
def test_stack_file_is_valid_and_has_its_own_name(name: str) -> None:
    loaded = load_stack(name)
    assert loaded.name == name
    for version in loaded.packages.values():
        Version(version)


@pytest.mark.parametrize("row", MATRIX.split("\n")[1:-1], ids=lambda row: row.split()[0])
def test_release_matrix_row_is_a_stack(row: str) -> None:
    ascend, vllm, python, cann, torch, torch_npu, triton = row.split()
    (found,) = [s for s in map(load_stack, stack_names()) if s.packages.get("vllm-ascend") == ascend]
    assert found.name in (f"ascend-{ascend.rpartition('.')[0]}", f"ascend-{ascend}")
    assert (found.stack.python, found.cann) == (python, cann)
    packages = {"vllm": vllm, "vllm-ascend": ascend, "torch": torch, "torch-npu": torch_npu}
    assert found.packages == packages | ({} if triton == "-" else {"triton-ascend": triton})


@pytest.mark.parametrize("name", stack_names())
def test_series_and_builds_of_a_stack_exist(name: str) -> None:
    loaded = load_stack(name)
    assert loaded.tested == bool(loaded.patches)
    for package, version in loaded.patches.items():
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


@pytest.mark.parametrize("name", LOCKED)
def test_lock_has_every_package_of_the_stack_at_its_version(name: str) -> None:
    loaded = load_stack(name)
    lock = read_lock(lock_path(name))
    for package, version in loaded.packages.items():
        assert lock[loaded.distributions(package)[0]].version == version


@pytest.mark.parametrize("name", LOCKED)
def test_lock_has_exactly_the_files_of_an_origin(name: str) -> None:
    lock = read_lock(lock_path(name))
    for package, origin in load_stack(name).origin.items():
        assert lock[package].hashes == {file.sha256 for file in origin.files}


@pytest.mark.parametrize("name", LOCKED)
def test_lock_has_no_unwanted_or_omitted_package(name: str) -> None:
    loaded = load_stack(name)
    assert not (loaded.unwanted | loaded.omitted).keys() & read_lock(lock_path(name)).keys()


@pytest.mark.parametrize("name", LOCKED)
def test_lock_names_no_source(name: str) -> None:
    text = lock_path(name).read_text()
    assert "://" not in text
    assert "--find-links" not in text
    assert "--index" not in text


@pytest.mark.parametrize(
    ("installed", "wanted", "same"),
    [
        ("2.13.0+cpu", "2.13.0+cpu", True),
        ("2.13.0", "2.13.0+cpu", False),
        ("2.10.0+cpu", "2.10.0", True),
        ("2.10.0.post4", "2.10.0", False),
        ("0.22.1rc1", "0.22.1rc1", True),
        ("0.22.1rc1.dev263+g967c5c3bc", "0.22.1rc1", False),
        ("2.9.0.post1+git4c901a4", "2.9.0.post1+git4c901a4", True),
        ("2.9.0.post1", "2.9.0.post1+git4c901a4", False),
        ("9.1.0", "9.1.RC1", False),
        ("9.1.rc1", "9.1.RC1", True),
        ("8.3.RC2.alpha", "8.3.RC2", False),
    ],
)
def test_version_comparison(installed: str, wanted: str, same: bool) -> None:
    assert matches(installed, wanted) is same


@pytest.mark.parametrize(
    ("installed", "wanted", "expected"),
    [
        ("0.22.1rc1.dev263+g967c5c3bc", "0.22.1rc1", "older"),
        ("0.22.1rc1.dev263+g967c5c3bc", "0.21.0rc1", "newer"),
        ("0.22.1rc1+g967c5c3bc", "0.22.1rc1", "same"),
        ("2.10.0.post4", "2.10.0", "newer"),
        ("2.10.0.post2", "2.10.0.post4", "older"),
        ("2.10.0+cpu", "2.10.0", "same"),
        ("2.13.0", "2.13.0+cpu", "other"),
        ("2.9.0.post1", "2.9.0.post1+git4c901a4", "other"),
        ("2.9.0", "2.9.0.post1+git4c901a4", "older"),
        ("3.2.0.dev20260322", "3.2.0", "older"),
        ("9.1.RC1", "9.1.0", "older"),
        ("9.1.0", "9.1.RC1", "newer"),
        ("9.1.rc1", "9.1.RC1", "same"),
        ("8.3.RC2.alpha", "8.3.RC2", "other"),
        ("garbage", "1.0", "other"),
    ],
)
def test_relation(installed: str, wanted: str, expected: str) -> None:
    assert relation(installed, wanted) == expected


def test_range_of_versions() -> None:
    assert within("2.48.0", ">=2.47.1,<=2.48.0")
    assert not within("2.60.0", ">=2.47.1,<=2.48.0")
    assert within("5.5.4+local", "==5.5.4")
    assert not within("garbage", ">=1")


def test_distance_compares_the_release_line_first() -> None:
    near = ["0.23.0", "0.23.0rc1", "0.23.1", "0.22.9", "0.30.0rc2", "1.0", "garbage"]
    assert sorted(near, key=lambda version: distance("0.23.0", version)) == near
