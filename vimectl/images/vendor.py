"""Collect everything an image is built from into one folder, from which it is then built without a network.

Interrupted, the same call goes on: a file counts when it has the digest that is asked for, or the one it had
when it was made. The manifest is written last, so a folder that has one was whole at that moment.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import MissingRequirement, UsageError, VimeError

from vimectl import env
from vimectl.env.download_wheels import WheelTarget, download_wheels, remove_other_wheels
from vimectl.util.phase_progress import PhaseProgress
from vimectl.images import git_source, manifest
from vimectl.images.manifest import Entry, Manifest
from vimectl.images.plan import Plan, Source

Report = Callable[[PhaseProgress], None]

# What is fetched and not yet in its place, and the digests of the archives that are.
_WORK = ".work"
_KNOWN = "known.json"
_OURS = {manifest.FILE, *manifest.FOLDERS, "stack.toml", "wheels.txt", _WORK, ".wheels"}


def cache(plan: Plan) -> Path:
    """The folder in the user's cache in which the sources of a plan are collected when none is named."""
    return Path(platformdirs.user_cache_dir("vimectl")) / "images" / f"{plan.stack.name}-{plan.machine}"


def lacking(plan: Plan, folder: Path) -> list[Source]:
    """Return the sources that ``collect`` would have to fetch or make; looks at nothing but the folder."""
    known = _known(folder)
    wheels = {sha256_file(path) for path in (folder / "wheels").glob("*.whl")}
    return [source for source in plan.sources if not _there(source, plan, folder, known, wheels)]


def collect(plan: Plan, folder: Path, report: Report) -> Manifest:
    """Have everything that ``plan`` names in ``folder``, and its manifest.

    Raises:
        UsageError: the folder holds something that is not ours.
        CheckFailed: a wheel has another digest than the lock's, a repository has no such commit.
        MissingRequirement: a source cannot be reached, git or pip is missing, or the disk is full.
    """
    with _held(folder, report) as held, _room(folder):
        known = _known(folder)
        work = folder / _WORK
        work.mkdir(exist_ok=True)
        report(PhaseProgress("making a wheel of vimectl itself"))
        own = _own_wheel(work)
        if whole := _whole(plan, folder, own):  # left as it is: an image may be being built from it
            shutil.rmtree(work)
            return whole
        _note(work, known)
        (folder / manifest.FILE).unlink(missing_ok=True)
        (folder / "vimectl").mkdir(exist_ok=True)
        os.replace(own, folder / "vimectl" / own.name)
        for source in plan.sources:
            if source.kind in ("stack", "lock"):
                origin = plan.stack_file if source.kind == "stack" else plan.lock
                shutil.copyfile(origin, work / "copy")
                os.replace(work / "copy", folder / source.path)
        _wheels(plan, folder, report)
        _repositories(plan, folder, known, held, report)
        collected = _manifest(plan, folder, folder / "vimectl" / own.name)
        _discard_others(folder, collected)
        fresh = work / manifest.FILE
        fresh.write_text(json.dumps(collected.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8")
        os.replace(fresh, folder / manifest.FILE)
        shutil.rmtree(work)
        return collected


def _wheels(plan: Plan, folder: Path, report: Report) -> None:
    pins = [source.pin for source in plan.sources if source.pin]
    target = WheelTarget(plan.image.python, plan.machine, plan.image.glibc)
    download_wheels(pins, folder / "wheels", target, plan.stack.origin, report)
    remove_other_wheels(pins, folder / "wheels")


def _repositories(plan: Plan, folder: Path, known: dict[str, str], held: int, report: Report) -> None:
    sources = [source for source in plan.sources if source.kind == "git"]
    work = folder / _WORK
    for done, source in enumerate(sources):
        path = folder / source.path
        if path.is_file() and known.get(source.path) == sha256_file(path):
            continue

        def on_line(line: str, done: int = done, name: str = source.name) -> None:
            report(PhaseProgress("fetching", done, len(sources), "repositories", detail=f"{name} {line}"))

        git_source.archive(source, path, work / "git", held, on_line)
        known[source.path] = sha256_file(path)
        _note(work, known)


def _own_wheel(work: Path) -> Path:
    made = work / "vimectl"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    return env.own_wheel(made)


def _whole(plan: Plan, folder: Path, own: Path) -> Manifest | None:
    """The manifest of a folder that has all of the plan, and this very vimectl; None when something lacks."""
    try:
        found = manifest.check(folder)
        manifest.fits(found, plan, folder)
    except VimeError:
        return None
    there = {entry.sha256 for entry in found.sources if entry.kind == "own-wheel"}
    return found if there == {sha256_file(own)} else None


def _manifest(plan: Plan, folder: Path, own: Path) -> Manifest:
    wheels = {sha256_file(path): path for path in (folder / "wheels").glob("*.whl")}
    entries = []
    for source in plan.sources:
        if source.kind == "wheel":
            path = next(wheels[digest] for digest in source.sha256 if digest in wheels)
        elif source.kind in ("own-wheel", "patches"):
            path = own
        else:
            path = folder / source.path
        entries.append(
            Entry(
                name=source.name,
                kind=source.kind,
                reason=source.reason,
                version=source.version,
                url=source.url,
                commit=source.commit,
                series=source.sha256[0] if source.kind == "patches" else "",
                path=path.relative_to(folder).as_posix(),
                size=path.stat().st_size,
                sha256=sha256_file(path),
            )
        )
    return Manifest(
        schema=manifest.SCHEMA,
        stack=plan.stack.name,
        machine=plan.machine,
        python=plan.image.python,
        sources=entries,
    )


def _there(source: Source, plan: Plan, folder: Path, known: dict[str, str], wheels: set[str]) -> bool:
    path = folder / source.path
    if source.kind == "wheel":
        return not wheels.isdisjoint(source.sha256)
    if source.kind == "git":
        return path.is_file() and known.get(source.path) == sha256_file(path)
    if source.kind in ("stack", "lock"):
        origin = plan.stack_file if source.kind == "stack" else plan.lock
        return path.is_file() and sha256_file(path) == sha256_file(origin)
    return False  # our own wheel, and the patches in it, are made each time


def _discard_others(folder: Path, collected: Manifest) -> None:
    """Remove what is of another plan that was collected here before."""
    listed = {folder / entry.path for entry in collected.sources}
    for name in manifest.FOLDERS:
        for path in (folder / name).glob("*"):
            if path not in listed:
                path.unlink()


def _known(folder: Path) -> dict[str, str]:
    """The digests of archives that were made here, by path: of an unfinished call, or of the manifest."""
    with suppress(OSError, ValueError):
        known: dict[str, str] = json.loads((folder / _WORK / _KNOWN).read_text(encoding="utf-8"))
        return known
    with suppress(UsageError):
        return {entry.path: entry.sha256 for entry in manifest.read(folder).sources if entry.kind == "git"}
    return {}


def _note(work: Path, known: dict[str, str]) -> None:
    fresh = work / f"{_KNOWN}.fresh"
    fresh.write_text(json.dumps(known), encoding="utf-8")
    os.replace(fresh, work / _KNOWN)


@contextmanager
def _held(folder: Path, report: Report) -> Iterator[int]:
    """Hold the folder for this process, and yield the descriptor that does: a child inherits it.

    Raises UsageError when the folder holds something that was not collected.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileExistsError as e:
        raise UsageError(f"{folder} is not a directory", "name another directory") from e
    except OSError as e:
        raise MissingRequirement(f"{folder} cannot be made: {e.strerror}", "name another directory") from e
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(PhaseProgress(f"waiting for another `vimectl image` that collects in {folder}"))
            fcntl.flock(held, fcntl.LOCK_EX)
        foreign = sorted({entry.name for entry in folder.iterdir()} - _OURS)
        if foreign:
            raise UsageError(
                f"{folder} was not made by vimectl: it holds {', '.join(foreign[:3])}",
                "name a directory that is empty or does not exist",
            )
        yield held
    finally:
        os.close(held)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space left" if full else f"cannot be written: {e.strerror or e}"
        raise MissingRequirement(
            f"{folder}: {what}",
            "free some, or name a folder on another disk; the same command goes on where it stopped",
        ) from e
