"""Every release that a stack is for, with the files that its series touch, as released.

`make test-releases` runs all, and prints a table of them with their times.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY
from harness.patches.stored_content import content_at
from harness.upstream import released
from vimectl.cli import run_cli
from vimectl.patches import series
from vimectl.patches.blobs import id_of
from vimectl.patches.series import Series
from vimectl.stacks.catalog import load_stack

sys.path.insert(0, str(REPOSITORY / "scripts"))
from new_releases import missing_releases

_ASCEND = released.ascend_stacks()
# The everyday suite has the oldest, 0.22, the newest and the one for CPUs.
_EVERYDAY = (_ASCEND[0], "ascend-0.22", _ASCEND[-1], "cpu-0.32")
STACKS = [
    pytest.param(name, marks=() if name in _EVERYDAY else pytest.mark.exhaustive)
    for name in (*_ASCEND, "cpu-0.32")
]

Patch = Callable[..., tuple[int, dict[str, Any]]]

pytestmark = pytest.mark.needs("network")


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shipped(stack: str) -> dict[str, Series]:
    """The series of the stack by package."""
    return {
        package: series.load(package, version)
        for package, versions in load_stack(stack).patches.items()
        for version in versions
    }


@pytest.fixture
def unpacked(
    stack: str,
    shipped: dict[str, Series],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Path:
    """A directory with the files to patch and the metadata of each package, as released."""
    started = time.perf_counter()
    for package, version in released.versions_of(stack).items():
        one = shipped[package]
        released.fetch_touched(package, version, [*one.chains, f"{one.module}/__init__.py"], tmp_path)
    record_property("fetch", time.perf_counter() - started)
    return tmp_path


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_apply_verify_revert(
    stack: str,
    shipped: dict[str, Series],
    unpacked: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    def patch(command: str) -> tuple[int, dict[str, Any]]:
        code = run_cli(["patch", command, "--stack", stack, "--target", str(unpacked), "--json"])
        return code, json.loads(capsys.readouterr().out)

    capsys.readouterr()
    before = contents(unpacked)
    started = time.perf_counter()
    code, found = patch("verify")
    assert (code, {one["state"] for one in found["targets"]}) == (1, {"pristine"})
    code, done = patch("apply")
    assert code == 0
    assert {one["path"]: one["after"] for one in done["changed"]} == {
        str(unpacked / path): chain[-1] for one in shipped.values() for path, chain in one.chains.items()
    }
    code, found = patch("verify")
    assert (code, {one["state"] for one in found["targets"]}) == (0, {"applied"})
    assert patch("revert")[0] == 0
    assert contents(unpacked) == before
    record_property("patch", time.perf_counter() - started)
    versions = " ".join(f"{package} {version}" for package, version in released.versions_of(stack).items())
    patches = [f"{one.package}/{patch.id}" for one in shipped.values() for patch in one.patches]
    unneeded = [f"{one.package}/{slug} unneeded" for one in shipped.values() for slug in one.unneeded]
    record_property("release", [stack, versions, ", ".join(patches + unneeded)])


def test_git_applies_the_patches_with_the_same_result(shipped: dict[str, Series], unpacked: Path) -> None:
    subprocess.run(["git", "init", "-q", unpacked], check=True)  # otherwise git would use a work tree above
    for one in shipped.values():
        for patch in one.patches:
            file = one.directory / series.file_name(patch.id)
            command = ["git", "apply", "--whitespace=error-all", file]
            subprocess.run(command, cwd=unpacked, check=True)
        assert {path: id_of(content_at(unpacked / path)) for path in one.chains} == {
            path: chain[-1] for path, chain in one.chains.items()
        }


@pytest.mark.slow
def test_post_release_with_the_same_files_takes_the_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = series.load("vllm-ascend", "0.23.0")
    released.fetch_touched("vllm-ascend", "0.23.0.post1", [*one.chains, "vllm_ascend/__init__.py"], tmp_path)
    arguments = ["vllm-ascend", "--stack", "ascend-0.23", "--target", str(tmp_path), "--json"]
    assert run_cli(["patch", "apply", *arguments]) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert (target["version"], target["state"]) == ("0.23.0.post1", "applied")


@pytest.mark.exhaustive
def test_every_release_has_a_stack() -> None:
    assert not (missing := missing_releases()), "\n".join(
        f"vimectl stack new {name} --vllm-ascend {version}" for version, name in missing.items()
    )
