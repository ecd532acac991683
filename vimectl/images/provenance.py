"""How an image came about: what went in with digests, what came out, made by what, and when.

The form is an in-toto statement (https://in-toto.io/Statement/v1) with SLSA's provenance, version 1. It is
not signed: who publishes an image signs it, with cosign for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vime_runtime.spec.atomic_io import sha256_file

from vimectl import __version__
from vimectl.images.manifest import Manifest
from vimectl.images.plan import Plan

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = "urn:vimectl:image-build:1"


@dataclass(frozen=True)
class Made:
    """What a build was: the image's name and digest (``sha256:...``), the base's digest, the builder with its
    version, the arguments that it got, SOURCE_DATE_EPOCH, begin and end."""

    name: str
    digest: str
    base_digest: str
    builder: str
    builder_version: str
    arguments: Mapping[str, str]
    epoch: int | None
    began: datetime
    ended: datetime


def write(path: Path, plan: Plan, found: Manifest, made: Made, beside: Sequence[Path] = ()) -> Path:
    """Write the statement and return where. ``beside`` are the files that the build left with it."""
    path.write_text(json.dumps(statement(plan, found, made, beside), indent=2) + "\n", encoding="utf-8")
    return path


def statement(plan: Plan, found: Manifest, made: Made, beside: Sequence[Path] = ()) -> dict[str, Any]:
    """The statement as JSON has it."""
    return {
        "_type": _STATEMENT,
        "subject": [{"name": made.name, "digest": _digest(made.digest)}],
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
                "internalParameters": {"arguments": dict(made.arguments), "SOURCE_DATE_EPOCH": made.epoch},
                "resolvedDependencies": [
                    {"name": "base", "uri": f"oci:{plan.base}", "digest": _digest(made.base_digest)},
                    *_dependencies(found),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": "urn:vimectl:image-builder",
                    "version": {"vimectl": __version__, made.builder: made.builder_version},
                },
                "metadata": {"startedOn": _time(made.began), "finishedOn": _time(made.ended)},
                "byproducts": [
                    {"name": file.name, "digest": {"sha256": sha256_file(file)}} for file in beside
                ],
            },
        },
    }


def _dependencies(found: Manifest) -> Iterator[dict[str, Any]]:
    for entry in found.sources:
        described: dict[str, Any] = {"name": entry.name, "digest": {"sha256": entry.sha256}}
        if entry.kind == "git":
            described["uri"] = f"git+{entry.url}@{entry.commit}"
            described["digest"] = {"gitCommit": entry.commit, "sha256": entry.sha256}
        elif entry.kind == "wheel":
            described["uri"] = f"pkg:pypi/{entry.name}@{entry.version}"
        elif entry.kind == "patches":  # as a series; the file is our wheel's, which is named as well
            described["digest"] = {"sha256": entry.series}
        version = {"version": entry.version} if entry.version else {}
        yield {**described, "annotations": {"kind": entry.kind, "reason": entry.reason, **version}}


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value} if value else {}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
