"""An image built with buildah on a fake base image, and interrupted and failing builds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.atomic_io import sha256_file

from harness.images import fake_base
from harness.images.image_store import ImageStore, interrupted
from vimectl.images import manifest
from vimectl.patches import series
from vimectl.stacks.catalog import load_stack

pytestmark = [pytest.mark.slow, pytest.mark.needs("network")]


@pytest.fixture(scope="module")
def found(images: ImageStore, stand_in_image: str) -> dict[str, Any]:
    """The JSON of the image's verification."""
    return images.verify(stand_in_image, "--stand-in")


def test_labels_describe_the_image(found: dict[str, Any], stand_in_folder: Path) -> None:
    labels = found["labels"]
    stack = load_stack(fake_base.STACK)
    digests = [f"{name}={series.load(name, version).digest}" for name, version in stack.series]
    assert labels["vimectl.stack"] == fake_base.STACK
    assert labels["vimectl.chip"] == "a2"
    assert labels["vimectl.series"] == ",".join(digests)
    assert labels["vimectl.manifest"] == sha256_file(stand_in_folder / manifest.FILE)
    assert labels["vimectl.stand-in"] == "yes"
    assert labels["org.opencontainers.image.base.name"] == fake_base.IMAGE
    assert len(labels["org.opencontainers.image.revision"]) >= 40


def test_verification_accepts_an_expected_stand_in(found: dict[str, Any]) -> None:
    assert found["ok"]
    assert found["problems"] == []
    assert found["stand_in"] is True
    states = {target["package"]: (target["state"], target["location"]) for target in found["patches"]}
    for package in ("vllm", "vllm-ascend"):
        state, location = states[package]
        assert state == "applied"
        assert location == f"{fake_base.WORKSPACE}/{package}"


def test_memory_saver_of_a_stand_in_is_not_known(found: dict[str, Any]) -> None:
    (loaded,) = (build for build in found["tms"] if build["loads"])
    assert (loaded["verdict"], loaded["backend"]) == ("unknown", "ascend")


def test_doctor_report_of_the_build_is_kept(found: dict[str, Any]) -> None:
    report = found["report"]
    failed = {check["id"] for check in report["checks"] if check["status"] == "fail"}
    assert report["schema"] == "vimectl.doctor/1"
    assert failed == {"tms.library"}
    assert {"cann.toolkit", "packages.vllm", "patches.vllm-ascend"} <= {c["id"] for c in report["checks"]}


def test_verification_rejects_an_unexpected_stand_in(images: ImageStore, stand_in_image: str) -> None:
    done = images.vimectl("image", "verify", stand_in_image, "--builder", "buildah")
    assert done.returncode == 1
    assert "stand-in" in done.stdout
    assert "STAND-IN" in done.stdout


def test_user_has_cann_and_the_patches(images: ImageStore, stand_in_image: str) -> None:
    entry = "/opt/vimectl/entrypoint.sh"
    output = images.run(stand_in_image, entry, "bash", "-c", "id; env; pwd; touch ~/x && vimectl --version")
    assert "uid=1001(vime) gid=1000(HwHiAiUser)" in output
    assert "ASCEND_TOOLKIT_HOME=/usr/local/Ascend/cann-9.0.0" in output
    assert "ATB_HOME_PATH=" in output
    assert "PYTORCH_NPU_ALLOC_CONF" not in output
    verified = images.run(stand_in_image, entry, "vimectl", "patch", "verify", "--stack", fake_base.STACK)
    assert verified.count("applied") >= 5


def test_files_of_the_build_are_not_in_the_image(images: ImageStore, stand_in_image: str) -> None:
    places = "/offline /built /src /saver /root/.cache /home/vime/.cache /var/lib/apt/lists/* /tmp/*"
    assert images.run(stand_in_image, "sh", "-c", f"ls -d {places} 2>/dev/null; true") == ""


def test_built_wheels_are_recorded(images: ImageStore, stand_in_image: str) -> None:
    written = json.loads(images.run(stand_in_image, "cat", "/opt/vimectl/image.json"))
    names = {built["file"].partition("-")[0] for built in written["built"]}
    assert names == {"megatron_core", "mindspeed", "torch_memory_saver"}
    assert all(len(built["sha256"]) == 64 for built in written["built"])


def test_sbom_and_provenance_are_written(
    found: dict[str, Any], images: ImageStore, stand_in_image: str, stand_in_folder: Path
) -> None:
    folder = images.folder / f"records-{stand_in_image}"
    stated = json.loads((folder / "provenance.json").read_text())
    assert stated["subject"] == [{"name": stand_in_image, "digest": {"sha256": found["image"]}}]
    definition = stated["predicate"]["buildDefinition"]
    went_in = {one["name"]: one["digest"] for one in definition["resolvedDependencies"]}
    listed = json.loads((stand_in_folder / manifest.FILE).read_text())
    assert {entry["name"] for entry in listed["sources"]} <= went_in.keys()
    assert len(went_in["base"]["sha256"]) == 64
    byproducts = {
        one["name"]: one["digest"]["sha256"] for one in stated["predicate"]["runDetails"]["byproducts"]
    }
    assert byproducts == {name: sha256_file(folder / name) for name in ("build.log", "sbom.json")}
    bill = json.loads((folder / "sbom.json").read_text())
    there = {one["name"]: one["version"] for one in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert there["vllm-ascend"] == "0.22.1rc1"
    assert there["torch-memory-saver"] == "0.0.8"


def test_log_is_kept(images: ImageStore, stand_in_image: str) -> None:
    log = (images.folder / f"records-{stand_in_image}" / "build.log").read_text()
    assert "vimectl patch apply" in log
    assert "doctor: " in log


def test_build_leaves_nothing_else(images: ImageStore, stand_in_image: str) -> None:
    assert images.leftovers() == []


def test_ctrl_c_leaves_nothing(images: ImageStore, stand_in_stack: Path, stand_in_folder: Path) -> None:
    process = images.start(*images.building(stand_in_stack, stand_in_folder, "broken-off"))
    output = interrupted(process, images.folder / "records-broken-off" / "build.log", "Processing /offline")
    assert process.returncode == 130
    assert "no image, container or mount is left" in output
    assert images.leftovers() == []
    assert "broken-off" not in images.buildah("images")


@pytest.mark.parametrize("whole", [False, True], ids=["vimectl", "vimectl and its builder"])
def test_build_after_a_killed_one_removes_what_that_left(
    whole: bool, images: ImageStore, stand_in_stack: Path, stand_in_folder: Path
) -> None:
    building = images.building(stand_in_stack, stand_in_folder, "killed")
    log = images.folder / "records-killed" / "build.log"
    log.unlink(missing_ok=True)
    interrupted(images.start(*building), log, "Processing /offline", signal.SIGKILL)
    if whole:
        for process in images.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        # A builder that was not killed may have removed its container by now.
        assert any(left.startswith(("container", "process")) for left in images.leftovers())
    done = images.build(stand_in_stack, stand_in_folder, "after")
    assert done.returncode == 0, done.stderr
    assert images.leftovers() == []
    assert "killed" not in images.buildah("images")


def test_interrupted_build_keeps_an_equal_image(
    images: ImageStore, stand_in_stack: Path, stand_in_folder: Path, stand_in_image: str, tmp_path: Path
) -> None:
    """With SOURCE_DATE_EPOCH a second build makes the same image, which has the tag of the first."""
    program = tmp_path / "buildah"
    program.write_text(f'#!/bin/sh\n[ "$3" = again ] && exit 1\nexec {shutil.which("buildah")} "$@"\n')
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    store = ImageStore(images.folder, images.variables | path)
    done = store.build(stand_in_stack, stand_in_folder, "again")
    assert "buildah tag localhost/vimectl-build-result again" in done.stderr
    assert images.leftovers() == []
    assert images.verify(stand_in_image, "--stand-in")["ok"]


def test_full_disk_is_named(
    tmp_path: Path, images: ImageStore, stand_in_stack: Path, stand_in_folder: Path
) -> None:
    disk = tmp_path / "vimectl-disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "vimectl-disk", disk], check=True)
    try:
        small = ImageStore.make(tmp_path / "small", graph_root=disk / "graph")
        done = small.build(stand_in_stack, stand_in_folder, "too-large")
        assert done.returncode == 3, done.stderr
        assert "the disk is full" in done.stderr
        assert "pip install" in done.stderr
        assert small.leftovers() == []
        assert "too-large" not in small.buildah("images")
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", disk], check=True)
