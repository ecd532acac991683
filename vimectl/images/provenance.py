"""The provenance of an image: its inputs with digests, its digest, the builder, and the times.

The format is an in-toto statement (https://in-toto.io/Statement/v1) with SLSA provenance, version 1. It is
not signed; the publisher of an image signs it, for example with cosign.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vime_runtime.spec.atomic_io import sha256_file

from vimectl import __version__
from vimectl.images.manifest import SourceManifest
from vimectl.images.plan import ImagePlan
from vimectl.util.output_file import write_output

# The files in the directory of the records.
LOG, SBOM, PROVENANCE = "build.log", "sbom.json", "provenance.json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = "urn:vimectl:image-build:1"


@dataclass(frozen=True)
class BuiltImage:
    """An image and how it was built.

    ``id`` is the SHA-256 by which the builder names it; ``base_digest`` is ``sha256:...``; ``epoch`` is
    SOURCE_DATE_EPOCH in seconds; ``records`` is the directory of the log, the SBOM and the provenance.
    """

    tag: str
    id: str
    labels: Mapping[str, str]
    base_digest: str
    builder: str
    builder_version: str
    arguments: Mapping[str, str]
    epoch: int | None
    began: datetime
    ended: datetime
    records: Path


def write(plan: ImagePlan, found: SourceManifest, built: BuiltImage) -> None:
    """Write the statement of an image, which has the digests of its log and SBOM too."""
    byproducts = [built.records / LOG, built.records / SBOM]
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": built.tag, "digest": {"sha256": built.id}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {
                    "stack": plan.stack.name,
                    "chip": plan.chip,
                    "machine": plan.machine,
                    "base": plan.base,
                },
                "internalParameters": {
                    "arguments": dict(built.arguments),
                    "SOURCE_DATE_EPOCH": built.epoch,
                },
                "resolvedDependencies": [
                    {"name": "base", "uri": f"oci:{plan.base}", "digest": _digest(built.base_digest)},
                    *_dependencies(found),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": "urn:vimectl:image-builder",
                    "version": {"vimectl": __version__, built.builder: built.builder_version},
                },
                "metadata": {"startedOn": _time(built.began), "finishedOn": _time(built.ended)},
                "byproducts": [
                    {"name": file.name, "digest": {"sha256": sha256_file(file)}} for file in byproducts
                ],
            },
        },
    }
    text = json.dumps(statement, indent=2) + "\n"
    write_output(built.records / PROVENANCE, text.encode())


def _dependencies(found: SourceManifest) -> Iterator[dict[str, Any]]:
    for entry in found.sources:
        described: dict[str, Any] = {"name": entry.name, "digest": {"sha256": entry.sha256}}
        if entry.kind == "git":
            described["uri"] = f"git+{entry.url}@{entry.commit}"
            described["digest"] = {"gitCommit": entry.commit, "sha256": entry.sha256}
        elif entry.kind == "wheel":
            described["uri"] = f"pkg:pypi/{entry.name}@{entry.version}"
        elif entry.series:
            # Of the series; its file is the wheel of vimectl, which has a separate entry.
            described["digest"] = {"sha256": entry.series}
        version = {"version": entry.version} if entry.version else {}
        yield {**described, "annotations": {"kind": entry.kind, "reason": entry.reason, **version}}


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value} if value else {}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
