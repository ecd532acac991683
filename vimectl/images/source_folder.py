"""Check the files of a source folder, and copy them for a build while they are checked.

The folder is not trusted: it was carried here, and another process may change it at any time. Every file is
opened once, its bytes are hashed as they are copied, and only the copy is used. A file is proven by the
digests that the plan pins, or an archive by its commit. From these the manifest is made anew.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.images import manifest
from vimectl.images.manifest import ManifestEntry, SourceManifest, vendor_command
from vimectl.images.plan import LOCK_FILE, STACK_FILE, ImagePlan, ImageSource
from vimectl.releases.commit_archive import check_archive
from vimectl.util.directory_tree import DirectoryTree

# Unfinished downloads of `image vendor`; a build does not use them.
WORK = ".work"
OWN_ENTRIES = {manifest.FILE, *manifest.FOLDERS, STACK_FILE, LOCK_FILE, WORK}
# The largest wheels have 1 to 3 GB.
_MAX_FILE = 8 * 2**30
_CHUNK = 2**20
_SHOWN = 10


# The path of each wheel by its name and public version: a pin may lack the local part (PEP 440).
WheelFiles: TypeAlias = "Mapping[tuple[str, str], str]"


def check_for_plan(folder: Path, plan: ImagePlan, wheel: Path, copy: Path | None = None) -> SourceManifest:
    """Return the manifest after checking that the folder has exactly what a plan pins.

    Args:
        wheel, copy: as in ``describe``; the copy gets the manifest too.

    Raises:
        UsageError: the folder has no manifest, or an unreadable one.
        CheckFailed: it was collected for something else, or a file or the manifest is altered.
    """
    hint = f"collect it again: {_command(plan, folder)}"
    with open_folder(folder) as tree:
        found = manifest.read_manifest(tree)
        differ = [
            f"{what} {has}, to be built: {wanted}"
            for what, has, wanted in (
                ("stack", found.stack, plan.stack.name),
                ("machine", found.machine, plan.machine),
                ("Python", found.python, plan.image.python),
            )
            if has != wanted
        ]
        if differ:
            raise CheckFailed(f"{folder} was collected for something else: {'; '.join(differ)}", hint)
        made = describe(tree, plan, wheel, copy)
    if found != made:
        names = [entry.name for entry in found.sources if entry not in made.sources]
        wrong = (
            f"what it says of {', '.join(names[:_SHOWN])}" if names else "the number or order of its entries"
        )
        raise CheckFailed(f"{folder / manifest.FILE} does not match the files: {wrong}", hint)
    if copy:
        (copy / manifest.FILE).write_text(manifest.manifest_text(made), encoding="utf-8")
    return made


def describe(tree: DirectoryTree, plan: ImagePlan, wheel: Path, copy: Path | None = None) -> SourceManifest:
    """Return the manifest of a folder that has exactly the files of a plan.

    Args:
        wheel: the one that the running vimectl makes of itself: nothing else pins the wheel in the folder.
        copy: an empty directory that gets the checked bytes of every file.

    Raises:
        CheckFailed: a file is missing, has another digest or commit, is not a regular file, or is not of the
            plan; each is named.
        OSError: the disk is full.
    """
    own = (sha256_file(wheel),)
    wheels = wheel_files(tree, plan)
    paths = [_path(source, wheels) or f"vimectl/{wheel.name}" for source in plan.sources]
    pins = {
        path: (own, "") if source.path == "vimectl" else (source.sha256, source.commit)
        for path, source in zip(paths, plan.sources, strict=True)
    }
    files = _check_files(tree, pins, copy, _command(plan, tree.root))
    return SourceManifest(
        schema=manifest.SCHEMA,
        stack=plan.stack.name,
        machine=plan.machine,
        python=plan.image.python,
        sources=[
            _entry(source, path, *files[path]) for path, source in zip(paths, plan.sources, strict=True)
        ],
    )


def _entry(source: ImageSource, path: str, size: int, sha256: str) -> ManifestEntry:
    return ManifestEntry(
        name=source.name,
        kind=source.kind,
        reason=source.reason,
        version=source.version,
        url=source.url,
        # An installed vimectl has the same files as a checkout, but no commit.
        commit="" if source.kind == "own-wheel" else source.commit,
        series=source.sha256[0] if source.kind == "patches" and source.content is None else "",
        path=path,
        size=size,
        sha256=sha256,
    )


def wheel_files(tree: DirectoryTree, plan: ImagePlan) -> WheelFiles:
    """Return the paths of the wheels in a folder that are for the image's Python, by name and version."""
    found: dict[tuple[str, str], str] = {}
    with suppress(OSError):  # no folder, or a link, which ``describe`` refuses
        for file in tree.names("wheels"):
            with suppress(InvalidWheelFilename):
                name, version, _, tags = parse_wheel_filename(file)
                if not tags.isdisjoint(plan.wheel_target.ranks):
                    found[name, version.public] = f"wheels/{file}"
    return found


def has_source(tree: DirectoryTree, source: ImageSource, wheels: WheelFiles) -> bool:
    """Return True if a folder has the file of a source. vimectl, with its patches, is made every time."""
    path = _path(source, wheels)
    try:
        return path is not None and bool(_check_file(tree, path, source.sha256, source.commit, None))
    except (OSError, CheckFailed):
        return False


def _path(source: ImageSource, wheels: WheelFiles) -> str | None:
    """Return the path of a source in a folder, None for the wheel of vimectl, whose name has its version."""
    if source.kind == "wheel":
        missing = f"wheels/{source.name}-{source.version}"
        return wheels.get((source.name, Version(source.version).public), missing)
    return None if source.path == "vimectl" else source.path


def _command(plan: ImagePlan, folder: Path) -> str:
    return vendor_command(plan.stack.argument, plan.machine, folder)


@contextmanager
def open_folder(folder: Path) -> Iterator[DirectoryTree]:
    """Open a source folder. Raises UsageError when there is none."""
    try:
        tree = DirectoryTree(folder)
    except OSError as e:
        raise UsageError(
            f"{folder}: cannot be opened: {e.strerror}", f"collect it: {vendor_command('NAME', 'M', folder)}"
        ) from e
    with tree:
        yield tree


def remove_links(tree: DirectoryTree) -> None:
    """Remove the links and special files of a folder that is going to be filled; they are not sources.

    Raises UsageError when a folder is in the place of a file, or a link in that of a folder.
    """
    for folder in (*manifest.FOLDERS, WORK):
        status = tree.lstat(folder)
        if status and not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{tree.root / folder} is not a folder", "remove it, or name another folder")
    for path in _present(tree):
        status = tree.lstat(path)
        if status and stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{tree.root / path} is a folder", "remove it, or name another folder")
        if status and not (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
            tree.unlink(path)


def _present(tree: DirectoryTree) -> list[str]:
    """Return everything in the folders of a source folder."""
    found = []
    for folder in manifest.FOLDERS:
        with suppress(FileNotFoundError):
            found += [f"{folder}/{name}" for name in tree.names(folder)]
    return found


def _check_files(
    tree: DirectoryTree, pins: Mapping[str, tuple[Collection[str], str]], copy: Path | None, command: str
) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each file after checking that there are no others."""
    wrong, found = [], {}
    try:
        others = set(tree.names()) - OWN_ENTRIES | (set(_present(tree)) - pins.keys())
        wrong += [f"{path} is not in the manifest" for path in sorted(others)]
    except OSError as e:  # a link, possibly one that was put there just now
        wrong.append(f"{e.filename}: {e.strerror}")
    else:
        for path, (sha256, commit) in pins.items():
            try:
                found[path] = _check_file(tree, path, sha256, commit, copy)
            except FileNotFoundError:
                wrong.append(f"{path} is missing")
            except OSError as e:
                if e.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                wrong.append(f"{path} cannot be used: {e.strerror}")
            except CheckFailed as e:
                wrong.append(e.message)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CheckFailed(
            f"{tree.root}: {'; '.join(wrong[:_SHOWN])}{more}",
            f"remove what does not belong there, and collect the rest again: {command}",
        )
    return found


def _check_file(
    tree: DirectoryTree, path: str, sha256: Collection[str], commit: str, copy: Path | None
) -> tuple[int, str]:
    """Return size and SHA-256 of a file after checking it; copy exactly the checked bytes.

    It has one of the digests, if there are any, and is the archive of the commit, if there is one.
    Raises CheckFailed, or OSError when it is not a regular file or cannot be read.
    """
    hint = "collect the folder again"
    with tree.open(path) as file:
        status = os.fstat(file.fileno())
        if copy and status.st_nlink != 1:
            raise CheckFailed(f"{path} is a hard link: another path changes it too", hint)
        if status.st_size > _MAX_FILE:
            raise CheckFailed(f"{path} has {status.st_size} bytes, allowed are {_MAX_FILE}", hint)
        target = copy / path if copy else None
        found = _copy(file, target, status.st_size)
        if sha256 and found[1] not in sha256:
            expected = " or ".join(sha256)
            raise CheckFailed(f"{path} has sha256 {found[1]}, expected {expected}", hint)
        if commit:
            file.seek(0)
            with target.open("rb") if target else file as checked:
                check_archive(checked, path, commit)
    return found


def _copy(file: IO[bytes], target: Path | None, limit: int) -> tuple[int, str]:
    """Return size and SHA-256 of at most ``limit`` bytes; write exactly these to a new file."""
    if target:
        target.parent.mkdir(exist_ok=True)
    hashed, left = hashlib.sha256(), limit
    with target.open("xb") if target else open(os.devnull, "wb") as copied:
        while left and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            hashed.update(chunk)
            copied.write(chunk)
    return limit - left, hashed.hexdigest()
