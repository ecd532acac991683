"""The software bill of materials of an image in CycloneDX: its packages and its sources."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from vime_runtime.spec.errors import MissingRequirement

from vimectl import __version__
from vimectl.images.manifest import SourceManifest
from vimectl.util.output_file import write_output

try:
    from cyclonedx.model import (
        ExternalReference,
        ExternalReferenceType,
        HashAlgorithm,
        HashType,
        Property,
        XsUri,
    )
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL
except ModuleNotFoundError as e:  # the extra `image`
    raise MissingRequirement(
        "cyclonedx-python-lib, which writes the SBOM of an image, is not installed",
        'pip install "vimectl[image]"',
    ) from e

# The newest version that common scanners read.
_SCHEMA = SchemaVersion.V1_6
# For serial numbers derived from the image's digest: the same image has the same one.
_NAMESPACE = uuid.UUID("6e1b0a3c-3a0f-5a70-9d1a-5e2f1d8c7b40")


def write(
    path: Path,
    name: str,
    digest: str,
    found: SourceManifest,
    installed: Iterable[tuple[str, str]],
    made: datetime,
) -> None:
    """Write the SBOM of an image to ``path``.

    Args:
        name: the image's name with its tag.
        digest: its digest, ``sha256:...``.
        found: the manifest of its sources.
        installed: name and version of the Python distributions in it.
        made: when it was built.
    """
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, digest))
    bom.metadata.timestamp = made
    tool = Component(type=ComponentType.APPLICATION, name="vimectl", version=__version__)
    bom.metadata.tools.components.add(tool)
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=digest,
        bom_ref="image",
        properties=[Property(name="vimectl:stack", value=found.stack)],
    )
    components = [*_distributions(found, installed), *_sources(found)]
    bom.components.update(components)
    bom.register_dependency(bom.metadata.component, components)
    text = make_outputter(bom, OutputFormat.JSON, _SCHEMA).output_as_string(indent=2)
    write_output(path, f"{text}\n".encode())


def _distributions(found: SourceManifest, installed: Iterable[tuple[str, str]]) -> Iterator[Component]:
    """Yield the installed distributions; those from a collected wheel have its digest."""
    wheels = {entry.name: entry for entry in found.sources if entry.kind in ("wheel", "own-wheel")}
    for name, version in sorted(set(installed)):
        ours = wheels.get(name)
        purl = PackageURL("pypi", None, name, version)
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            purl=purl,
            bom_ref=str(purl),
            hashes=[_hash(ours.sha256)] if ours and ours.version == version else [],
        )


def _sources(found: SourceManifest) -> Iterator[Component]:
    for entry in found.sources:
        if entry.kind == "git":
            yield Component(
                type=ComponentType.LIBRARY,
                name=entry.name,
                version=entry.commit,
                purl=package_url(entry.name, entry.url, entry.commit),
                bom_ref=f"git:{entry.name}",
                hashes=[_hash(entry.sha256)],
                external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(entry.url))],
            )
        elif entry.kind == "patches":
            yield Component(
                type=ComponentType.FILE,
                name=f"patches/{entry.name}",
                version=entry.version,
                bom_ref=f"patches:{entry.name}",
                hashes=[_hash(entry.series)],
                description=entry.reason,
            )


def package_url(name: str, url: str, commit: str) -> PackageURL:
    """Return the package URL of a commit: type github, or generic with the URL as a qualifier."""
    parts = urlsplit(url)
    path = parts.path.strip("/").removesuffix(".git")
    if parts.hostname == "github.com" and "/" in path:
        # The type requires lower case.
        owner, _, project = path.lower().rpartition("/")
        return PackageURL("github", owner, project, commit)
    return PackageURL("generic", None, name, commit, {"vcs_url": f"git+{url}@{commit}"})


def _hash(sha256: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=sha256)
