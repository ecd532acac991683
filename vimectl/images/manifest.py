"""Describe the folder that holds all sources of an image, and read its manifest.

DIR/manifest.json       written last: without it the folder is incomplete
DIR/stack.toml          the stack
DIR/wheels.txt          the lock: pip installs these files from DIR/wheels, each checked by its digest
DIR/wheels/*.whl
DIR/sources/NAME-COMMIT.tar.gz  see vimectl.releases.commit_archive
DIR/vimectl/*.whl       vimectl itself, with its patches in it
DIR/patches/*.tar       the series of a project
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.strict import Strict

from vimectl.images.plan import SourceKind
from vimectl.util import toml
from vimectl.util.directory_tree import DirectoryTree

FILE = "manifest.json"
SCHEMA: Final = "vimectl.offline/1"
# Only files of the manifest may be in these: pip and the build use every file that they find there.
FOLDERS = ("wheels", "sources", "vimectl", "patches")

_MAX_BYTES = 16 * 2**20

# The directory of vimectl in an image: the manifest, the stack, and these two files. The Dockerfiles have the
# same path.
IMAGE_DIR = Path("/opt/vimectl")
IMAGE_RECORD = "image.json"  # what was built, what is installed, and if the image is a stand-in
IMAGE_REPORT = "doctor.json"  # the doctor's report from the end of the build


class ManifestEntry(Strict):
    """One source and the file that holds it. ``size`` is in bytes; ``commit`` is that of a git source.

    ``series`` is the digest of a patch series of vimectl; its file is the wheel that contains it.
    """

    name: str
    kind: SourceKind
    reason: str
    version: str = ""
    url: str = ""
    commit: str = ""
    series: str = ""
    path: str
    size: int
    sha256: str


class SourceManifest(Strict):
    """The schema of ``manifest.json``."""

    schema_: Literal["vimectl.offline/1"] = Field(alias="schema")
    stack: str
    machine: str
    python: str
    sources: list[ManifestEntry]

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum({entry.path: entry.size for entry in self.sources}.values())


def read_manifest(tree: DirectoryTree) -> SourceManifest:
    """Read the manifest of a folder without checking the files. Raises UsageError."""
    path = tree.root / FILE
    try:
        data = json.loads(tree.read(FILE, _MAX_BYTES))
    except FileNotFoundError as e:
        raise UsageError(
            f"{tree.root}: no {FILE}, so the folder is incomplete",
            f"collect the sources, or resume: vimectl image vendor --stack NAME --offline {tree.root}",
        ) from e
    except (OSError, ValueError, RecursionError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        raise UsageError(f"{path}: cannot be read: {reason}", "collect the folder again") from e
    if not isinstance(data, dict):
        raise UsageError(f"{path}: not the manifest of a source folder", "collect the folder again")
    return toml.validate(SourceManifest, data, str(path))


def manifest_text(found: SourceManifest) -> str:
    """Return the content of the manifest file."""
    return json.dumps(found.model_dump(by_alias=True), indent=2) + "\n"


def vendor_command(stack: str, machine: str, folder: Path) -> str:
    """Return the command that collects a folder, or what is missing in it."""
    return f"vimectl image vendor --stack {stack} --machine {machine} --offline {folder}"
