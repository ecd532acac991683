"""Apply, verify and revert the series of the Ascend stacks on the released packages."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.needs import unavailable
from vimectl.cli import run_cli
from vimectl.patches import series
from vimectl.patches.blobs import file_id_at
from vimectl.patches.releases import finder
from vimectl.patches.series import Series
from vimectl.stacks.catalog import load_stack

STACKS = ["ascend-0.20", "ascend-0.22", "ascend-0.23", "ascend-0.30"]
Contents = dict[str, tuple[int, str]]

pytestmark = pytest.mark.needs("network")


@pytest.fixture(scope="module", params=STACKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shipped(name: str) -> list[Series]:
    return [series.load(package, version) for package, version in load_stack(name).patches.items()]


@pytest.fixture(scope="module")
def parts(shipped: list[Series]) -> dict[str, bytes]:
    """Return the files to patch and the metadata of each release, without the rest of the wheels."""
    found = {}
    for one in shipped:
        try:
            release = finder.find(one.package, one.version)
            metadata = [path for path in release.paths() if ".dist-info/" in path or path == "PKG-INFO"]
            for path in (*one.chains, f"{one.module}/__init__.py", *metadata):
                content = release.read(path)
                assert content is not None, path
                found[path] = content
        except MissingRequirement as e:
            unavailable(e.message)
    return found


@pytest.fixture
def cut(parts: dict[str, bytes], tmp_path: Path) -> Path:
    """Return a directory with only these files."""
    for path, content in parts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    return tmp_path


@pytest.fixture
def whole(shipped: list[Series], unpack_release: Callable[..., None], tmp_path: Path) -> Path:
    """Return a directory with the complete releases."""
    for one in shipped:
        unpack_release(one.package, one.version, tmp_path)
    return tmp_path


def contents(directory: Path) -> Contents:
    """Return mode and digest of all files, folders and links."""
    found = {}
    for path in directory.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            digest = os.readlink(path) if path.is_symlink() else ""
        found[str(path)] = (mode, digest)
    return found


def apply_and_revert(
    name: str, directory: Path, shipped: list[Series], capsys: pytest.CaptureFixture[str]
) -> None:
    def patch(command: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = run_cli(["patch", command, "--stack", name, "--target", str(directory), "--json"])
        return code, json.loads(capsys.readouterr().out)

    def states() -> set[str]:
        return {one["state"] for one in patch("status")[1]["targets"]}

    before = contents(directory)
    assert states() == {"pristine"}
    code, done = patch("apply")
    ends = {str(directory / path): chain for one in shipped for path, chain in one.chains.items()}
    assert code == 0
    assert {one["path"]: (one["before"], one["after"]) for one in done["changed"]} == {
        path: (chain[0], chain[-1]) for path, chain in ends.items()
    }
    code, found = patch("verify")
    assert (code, found["ok"]) == (0, True)
    assert len(found["targets"]) == len(shipped)
    applied = {path: file_id_at(Path(path)).blob for path in ends}
    assert applied == {path: chain[-1] for path, chain in ends.items()}
    assert patch("revert")[0] == 0
    assert states() == {"pristine"}
    assert contents(directory) == before


def test_apply_verify_revert_on_the_patched_files(
    name: str, cut: Path, shipped: list[Series], capsys: pytest.CaptureFixture[str]
) -> None:
    apply_and_revert(name, cut, shipped, capsys)


@pytest.mark.slow
def test_apply_verify_revert_on_the_whole_packages(
    name: str, whole: Path, shipped: list[Series], capsys: pytest.CaptureFixture[str]
) -> None:
    apply_and_revert(name, whole, shipped, capsys)


def test_git_applies_the_patches_with_the_same_result(cut: Path, shipped: list[Series]) -> None:
    subprocess.run(["git", "init", "-q", cut], check=True)  # otherwise git would use a work tree above
    for one in shipped:
        for patch in one.patch:
            command = ["git", "apply", "--whitespace=error-all", one.directory / f"{patch.id}.patch"]
            subprocess.run(command, cwd=cut, check=True)
            assert {file.path: file_id_at(cut / file.path).blob for file in patch.files} == {
                file.path: file.after for file in patch.files
            }
