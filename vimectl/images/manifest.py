"""The folder that holds everything an image is built from, and whether it still does.

DIR/manifest.json       written last: without it the folder counts as not there yet
DIR/stack.toml          the stack
DIR/wheels.txt          the lock: what pip installs from DIR/wheels, each file by its digest
DIR/wheels/*.whl
DIR/sources/NAME-COMMIT.tar.gz
DIR/vimectl/*.whl       this tool; the patches are in it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, UsageError
from vime_runtime.spec.strict import Strict

from vimectl.images.plan import Kind, Plan, Source
from vimectl.stacks.schema import CommitId, Sha256
from vimectl.util import toml

FILE = "manifest.json"
SCHEMA: Final = "vimectl.offline/1"
# Where nothing but what the manifest lists may lie: pip and the build take what they find there.
FOLDERS = ("wheels", "sources", "vimectl")


# Below the folder: no way leads out of it.
InsidePath = Annotated[str, Field(pattern=r"^(\w[\w.+-]*/)?\w[\w.+-]*$")]


class Entry(Strict):
    """One source: what it is, and the file that holds it. ``size`` in bytes.

    ``series`` is the digest of a patch series, whose file is the wheel that carries it.
    """

    name: str
    kind: Kind
    reason: str
    version: str = ""
    url: str = ""
    commit: CommitId | Literal[""] = ""
    series: Sha256 | Literal[""] = ""
    path: InsidePath
    size: int
    sha256: Sha256


class Manifest(Strict):
    """A whole ``manifest.json``."""

    schema_: Literal["vimectl.offline/1"] = Field(alias="schema")
    stack: str
    machine: str
    python: str
    sources: list[Entry]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum({entry.path: entry.size for entry in self.sources}.values())


def read(folder: Path) -> Manifest:
    """Read the manifest of a folder, and no other file of it.

    Raises UsageError when there is none in order.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UsageError(
            f"{folder}: no {FILE}, so nothing in it is known to be whole",
            f"collect it, or go on where that stopped: vimectl image vendor --stack NAME --offline {folder}",
        ) from e
    except (OSError, ValueError) as e:
        raise UsageError(f"{path}: cannot be read: {e}", "collect the folder anew") from e
    if not isinstance(data, dict):
        raise UsageError(f"{path}: not the manifest of a folder of sources", "collect the folder anew")
    return toml.validate(Manifest, data, str(path))


def check(folder: Path) -> Manifest:
    """Return the manifest of a folder in which every file is there, unaltered, and nothing else lies.

    Raises:
        UsageError: the folder has no manifest, or one that cannot be read.
        CheckFailed: a file is missing, altered, or not of the manifest; each is named.
    """
    found = read(folder)
    entries = {entry.path: entry for entry in found.sources}
    wrong = [problem for entry in entries.values() if (problem := _wrong(folder, entry))]
    there = {path.relative_to(folder).as_posix() for name in FOLDERS for path in (folder / name).rglob("*")}
    wrong += [f"{path} is not in the manifest" for path in sorted(there - entries.keys())]
    if wrong:
        raise CheckFailed(
            f"{folder}: {'; '.join(wrong)}",
            f"fetch what is wrong again: {_command(found.stack, found.machine, folder)}",
        )
    return found


def fits(found: Manifest, plan: Plan, folder: Path) -> None:
    """Hold a folder against what is to be built.

    Raises:
        CheckFailed: it was collected for another stack, machine or Python, or with other pins; says which.
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
        elif not _is(source, entry, plan):
            differ.append(f"{source.name} {_pin(entry)}, to be built: {_pin(source)}")
    differ += [f"{entry.name} {_pin(entry)} is not to be built" for entry in entries.values()]
    if differ:
        raise CheckFailed(
            f"{folder} was collected for something else: {'; '.join(differ)}",
            f"collect it anew: {_command(plan.stack_argument, plan.machine, folder)}",
        )


def _command(stack: str, machine: str, folder: Path) -> str:
    return f"vimectl image vendor --stack {stack} --machine {machine} --offline {folder}"


def _is(source: Source, entry: Entry, plan: Plan) -> bool:
    """Whether an entry is the source that is meant."""
    if source.kind in ("stack", "lock"):
        return entry.sha256 == sha256_file(plan.stack_file if source.kind == "stack" else plan.lock)
    if source.kind == "wheel":
        return entry.sha256 in source.sha256
    if source.kind == "patches":
        return (entry.series,) == source.sha256
    if source.kind == "own-wheel":  # what is built is the folder's own, whichever vimectl builds it
        return entry.version == source.version
    return (entry.url, entry.commit) == (source.url, source.commit)


def _pin(of: Source | Entry) -> str:
    return " ".join(part for part in (of.version, of.commit) if part) or "of other content"


def _wrong(folder: Path, entry: Entry) -> str | None:
    """Say what is wrong with a file; None when it is as the manifest says."""
    path = folder / entry.path
    if not path.is_file():
        return f"{entry.path} is missing"
    size = path.stat().st_size
    if size != entry.size:
        return f"{entry.path} has {size} bytes, expected {entry.size}"
    found = sha256_file(path)
    return None if found == entry.sha256 else f"{entry.path} has sha256 {found}, expected {entry.sha256}"
