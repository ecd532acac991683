"""Describe and check the folder that holds all sources of an image, and its manifest.

DIR/manifest.json       written last: without it the folder is incomplete
DIR/stack.toml          the stack
DIR/wheels.txt          the lock: pip installs these files from DIR/wheels, each checked by its digest
DIR/wheels/*.whl
DIR/sources/NAME-COMMIT.tar.gz
DIR/vimectl/*.whl       vimectl itself, with its patches in it
DIR/patches/*.tar       the series of a project
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, UsageError
from vime_runtime.spec.strict import Strict

from vimectl.images.plan import ImagePlan, ImageSource, SourceKind
from vimectl.stacks.schema import CommitId, Sha256
from vimectl.util import toml

FILE = "manifest.json"
STACK_FILE = "stack.toml"
SCHEMA: Final = "vimectl.offline/1"
# Only files of the manifest may be in these: pip and the build use every file that they find there.
FOLDERS = ("wheels", "sources", "vimectl", "patches")

# The directory of vimectl in an image: the manifest, the stack, and these two files. The Dockerfiles have the
# same path.
IMAGE_DIR = Path("/opt/vimectl")
IMAGE_RECORD = "image.json"  # what was built, what is installed, and if the image is a stand-in
IMAGE_REPORT = "doctor.json"  # the doctor's report from the end of the build

# A path that cannot leave the folder.
SourcePath = Annotated[str, Field(pattern=r"^(\w[\w.+-]*/)?\w[\w.+-]*$")]


class ManifestEntry(Strict):
    """One source and the file that holds it. ``size`` is in bytes.

    ``series`` is the digest of a patch series of vimectl; its file is the wheel that contains it.
    """

    name: str
    kind: SourceKind
    reason: str
    version: str = ""
    url: str = ""
    commit: CommitId | Literal[""] = ""
    series: Sha256 | Literal[""] = ""
    path: SourcePath
    size: int
    sha256: Sha256


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


def read_manifest(folder: Path) -> SourceManifest:
    """Read the manifest of a folder without checking the files. Raises UsageError."""
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UsageError(
            f"{folder}: no {FILE}, so the folder is incomplete",
            f"collect the sources, or resume: vimectl image vendor --stack NAME --offline {folder}",
        ) from e
    except (OSError, ValueError) as e:
        raise UsageError(f"{path}: cannot be read: {e}", "collect the folder again") from e
    if not isinstance(data, dict):
        raise UsageError(f"{path}: not the manifest of a source folder", "collect the folder again")
    return toml.validate(SourceManifest, data, str(path))


def check_folder(folder: Path) -> SourceManifest:
    """Return the manifest after checking that the folder has exactly its files, unaltered.

    Raises:
        UsageError: the folder has no manifest, or an unreadable one.
        CheckFailed: a file is missing, altered, or not in the manifest; each is named.
    """
    found = read_manifest(folder)
    entries = {entry.path: entry for entry in found.sources}
    wrong = [problem for entry in entries.values() if (problem := _problem(folder, entry))]
    present = {path.relative_to(folder).as_posix() for name in FOLDERS for path in (folder / name).rglob("*")}
    wrong += [f"{path} is not in the manifest" for path in sorted(present - entries.keys())]
    if wrong:
        raise CheckFailed(
            f"{folder}: {'; '.join(wrong)}",
            f"download these again: {_command(found.stack, found.machine, folder)}",
        )
    return found


def check_matches_plan(found: SourceManifest, plan: ImagePlan, folder: Path) -> None:
    """Check that a folder was collected for this plan.

    Raises:
        CheckFailed: it is for another stack, machine or Python, or has other pins; the message lists them.
    """
    differ = [
        f"{what} {has}, to be built: {wanted}"
        for what, has, wanted in (
            ("stack", found.stack, plan.stack.name),
            ("machine", found.machine, plan.machine),
            ("Python", found.python, plan.image.python),
        )
        if has != wanted
    ]
    entries = {(entry.kind, entry.name): entry for entry in found.sources}
    for source in plan.sources:
        entry = entries.pop((source.kind, source.name), None)
        if entry is None:
            differ.append(f"{source.name} {source.version or source.commit} is not in it")
        elif not _matches(source, entry):
            differ.append(f"{source.name} {_pin(entry)}, to be built: {_pin(source)}")
    differ += [f"{entry.name} {_pin(entry)} is not to be built" for entry in entries.values()]
    if differ:
        raise CheckFailed(
            f"{folder} was collected for something else: {'; '.join(differ)}",
            f"collect it again: {_command(plan.stack_argument, plan.machine, folder)}",
        )


def _command(stack: str, machine: str, folder: Path) -> str:
    return f"vimectl image vendor --stack {stack} --machine {machine} --offline {folder}"


def _matches(source: ImageSource, entry: ManifestEntry) -> bool:
    if source.kind == "git":
        return (entry.url, entry.commit) == (source.url, source.commit)
    if source.kind == "own-wheel":  # another vimectl of the same version may build from the folder
        return entry.version == source.version
    return (entry.series or entry.sha256) in source.sha256


def _pin(of: ImageSource | ManifestEntry) -> str:
    return " ".join(part for part in (of.version, of.commit) if part) or "with other content"


def _problem(folder: Path, entry: ManifestEntry) -> str | None:
    """Return how a file differs from the manifest, or None."""
    path = folder / entry.path
    if not path.is_file():
        return f"{entry.path} is missing"
    size = path.stat().st_size
    if size != entry.size:
        return f"{entry.path} has {size} bytes, expected {entry.size}"
    found = sha256_file(path)
    return None if found == entry.sha256 else f"{entry.path} has sha256 {found}, expected {entry.sha256}"
