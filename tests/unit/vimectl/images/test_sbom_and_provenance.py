"""The SBOM and the provenance of an image."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.atomic_io import sha256_file

from harness.images.user_stack import UserStack
from vimectl.images import provenance, sbom, vendor
from vimectl.images.manifest import SourceManifest
from vimectl.images.plan import make_plan
from vimectl.images.provenance import BuiltImage
from vimectl.images.sbom import package_url

BEGAN = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
IMAGE = "sha256:" + "a" * 64
BASE = "sha256:" + "b" * 64
# One of them twice: in two directories.
INSTALLED = [("weights", "1.0"), ("torch", "2.10.0+cpu"), ("torch", "2.10.0+cpu"), ("torch", "2.9.0")]


@pytest.fixture
def found(own: UserStack, tmp_path: Path) -> SourceManifest:
    return vendor.collect(make_plan(str(own.file)), tmp_path / "offline", lambda now: None)


def bill(found: SourceManifest, folder: Path) -> dict[str, Any]:
    sbom.write(folder / "sbom.json", "vimectl:own", IMAGE, found, INSTALLED, BEGAN)
    return json.loads((folder / "sbom.json").read_text())


def test_sbom_has_installed_packages_sources_and_patches(
    own: UserStack, found: SourceManifest, tmp_path: Path
) -> None:
    written = bill(found, tmp_path)
    assert written["metadata"]["component"]["name"] == "vimectl:own"
    assert written["metadata"]["timestamp"].startswith("2026-06-01T12:00:00")
    components = {(one["name"], one["version"]): one for one in written["components"]}
    assert set(components) == {
        ("weights", "1.0"),
        ("torch", "2.10.0+cpu"),
        ("torch", "2.9.0"),
        ("trainer", own.commit),
        ("patches/megatron-core", "0.16.1"),
    }
    wheel = components["weights", "1.0"]
    assert wheel["purl"] == "pkg:pypi/weights@1.0"
    (entry,) = [entry for entry in found.sources if entry.name == "weights"]
    assert wheel["hashes"] == [{"alg": "SHA-256", "content": entry.sha256}]
    assert "hashes" not in components["torch", "2.9.0"]  # of the base image
    source = components["trainer", own.commit]
    assert source["externalReferences"] == [{"type": "vcs", "url": str(own.repository)}]


def test_sbom_is_valid_cyclonedx(found: SourceManifest, tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    bill(found, tmp_path)
    assert not JsonStrictValidator(SchemaVersion.V1_6).validate_str((tmp_path / "sbom.json").read_text())


def test_same_image_has_the_same_sbom(found: SourceManifest, tmp_path: Path) -> None:
    first = bill(found, tmp_path)
    assert bill(found, tmp_path) == first


def test_github_repository_has_its_own_package_url_type() -> None:
    (entry,) = [s for s in make_plan("ascend-0.22").sources if s.name == "megatron-lm"]
    purl = package_url(entry.name, entry.url, entry.commit)
    assert str(purl) == f"pkg:github/nvidia/megatron-lm@{entry.commit}"


def test_provenance_has_inputs_and_outputs(own: UserStack, found: SourceManifest, tmp_path: Path) -> None:
    (tmp_path / "build.log").write_text("STEP 1\n")
    (tmp_path / "sbom.json").write_text("{}\n")
    built = BuiltImage(
        tag="vimectl:own",
        id="a" * 64,
        labels={},
        base_digest=BASE,
        builder="buildah",
        builder_version="1.28.2",
        arguments={"STACK": "own"},
        epoch=1780315200,
        began=BEGAN,
        ended=BEGAN + timedelta(seconds=90),
        records=tmp_path,
    )
    provenance.write(make_plan(str(own.file)), found, built)
    statement = json.loads((tmp_path / "provenance.json").read_text())
    assert statement["subject"] == [{"name": "vimectl:own", "digest": {"sha256": "a" * 64}}]
    definition = statement["predicate"]["buildDefinition"]
    inputs = {one["name"]: one for one in definition["resolvedDependencies"]}
    assert inputs["base"] == {"name": "base", "uri": "oci:localhost/base", "digest": {"sha256": "b" * 64}}
    assert inputs["trainer"]["uri"] == f"git+{own.repository}@{own.commit}"
    assert inputs["trainer"]["digest"]["gitCommit"] == own.commit
    assert inputs["weights"]["uri"] == "pkg:pypi/weights@1.0"
    assert len(inputs) == len(found.sources) + 1
    assert all(one["digest"] for one in inputs.values())
    run = statement["predicate"]["runDetails"]
    assert run["builder"]["version"]["buildah"] == "1.28.2"
    assert run["metadata"] == {"startedOn": "2026-06-01T12:00:00Z", "finishedOn": "2026-06-01T12:01:30Z"}
    assert run["byproducts"] == [
        {"name": name, "digest": {"sha256": sha256_file(tmp_path / name)}}
        for name in ("build.log", "sbom.json")
    ]
