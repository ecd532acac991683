"""Collect all sources of an image in one folder, so that the image can be built without a network.

After an interruption the same call resumes: a file is kept when it has the pinned digest, or the one that it
had when it was made. The manifest is written last, so a folder that has one was complete then.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import platformdirs
from vime_runtime.spec.atomic_io import sha256_file, write_text_atomically
from vime_runtime.spec.errors import UsageError, VimeError

from vimectl.env import vimectl_wheel
from vimectl.env.download_wheels import WheelTarget, download_wheels, remove_other_wheels
from vimectl.env.installer import Pip
from vimectl.images import git_source, manifest
from vimectl.images.manifest import ManifestEntry, SourceManifest
from vimectl.images.plan import ImagePlan, ImageSource
from vimectl.util.directory_lock import explain_disk_errors, lock_directory
from vimectl.util.phase_progress import PhaseProgress, ReportPhase

# Unfinished downloads, and in it the digests of the archives that are finished.
_WORK = ".work"
_ARCHIVE_DIGESTS = "known.json"
_OWN_ENTRIES = {manifest.FILE, *manifest.FOLDERS, manifest.STACK_FILE, "wheels.txt", _WORK}


def default_folder(plan: ImagePlan) -> Path:
    """Return the folder in the user's cache that is used when the user names none."""
    return Path(platformdirs.user_cache_dir("vimectl")) / "images" / f"{plan.stack.name}-{plan.machine}"


def missing_sources(plan: ImagePlan, folder: Path) -> list[ImageSource]:
    """Return the sources that ``collect`` would download or make. Reads nothing but the folder."""
    archives = _archive_digests(folder)
    wheels = {sha256_file(path) for path in (folder / "wheels").glob("*.whl")}
    return [source for source in plan.sources if not _is_present(source, folder, archives, wheels)]


def collect(plan: ImagePlan, folder: Path, report: ReportPhase) -> SourceManifest:
    """Collect all sources of ``plan`` in ``folder`` and write the manifest.

    Raises:
        UsageError: the folder holds something that vimectl did not create.
        CheckFailed: a wheel has another digest than the lock's, or a repository lacks the commit.
        MissingRequirement: a source cannot be reached, git or pip is missing, or the disk is full.
    """
    waiting = PhaseProgress(f"waiting for another `vimectl image` that collects in {folder}")
    lock = lock_directory(folder, lambda: report(waiting), lambda names: names - _OWN_ENTRIES)
    disk_hint = "free some space, or name a folder on another disk; the same command then resumes"
    with lock as lock_fd, explain_disk_errors(folder, disk_hint):
        archives = _archive_digests(folder)
        work = folder / _WORK
        work.mkdir(exist_ok=True)
        report(PhaseProgress("making a wheel of vimectl itself"))
        shutil.rmtree(work / "vimectl", ignore_errors=True)  # left by an interrupted call
        (work / "vimectl").mkdir()
        wheel = vimectl_wheel.make_wheel(work / "vimectl")
        if complete := _complete(plan, folder, wheel):  # not touched: a build may be using it
            shutil.rmtree(work)
            return complete
        _write_archive_digests(work, archives)
        (folder / manifest.FILE).unlink(missing_ok=True)
        (folder / "vimectl").mkdir(exist_ok=True)
        os.replace(wheel, folder / "vimectl" / wheel.name)
        (folder / "patches").mkdir(exist_ok=True)
        made = {source.path: source.content for source in plan.sources if source.content is not None}
        for path, content in {**made, "wheels.txt": plan.lock.read_bytes()}.items():
            (work / "copy").write_bytes(content)
            os.replace(work / "copy", folder / path)
        pins = [source.pin for source in plan.sources if source.pin]
        target = WheelTarget(plan.image.python, plan.machine, plan.image.glibc)
        pip = Pip(Path(sys.executable), lock_fd, work / "pip")
        download_wheels(pip, pins, folder / "wheels", plan.stack.origin, report, target)
        remove_other_wheels(pins, folder / "wheels")
        _archive_repositories(plan, folder, archives, lock_fd, report)
        collected = _manifest(plan, folder, folder / "vimectl" / wheel.name)
        _remove_others(folder, collected)
        fresh = work / manifest.FILE
        fresh.write_text(json.dumps(collected.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8")
        os.replace(fresh, folder / manifest.FILE)
        shutil.rmtree(work)
        return collected


def _archive_repositories(
    plan: ImagePlan, folder: Path, archives: dict[str, str], lock_fd: int, report: ReportPhase
) -> None:
    sources = [source for source in plan.sources if source.kind == "git"]
    work = folder / _WORK
    for done, source in enumerate(sources):
        path = folder / source.path
        if _is_present(source, folder, archives, set()):
            continue

        def on_line(line: str, done: int = done, name: str = source.name) -> None:
            detail = f"{name} {line}"
            report(PhaseProgress("downloading", done, len(sources), "repositories", detail=detail))

        git_source.archive(source, path, work / "git", lock_fd, on_line)
        archives[source.path] = sha256_file(path)
        _write_archive_digests(work, archives)


def _complete(plan: ImagePlan, folder: Path, wheel: Path) -> SourceManifest | None:
    """Return the manifest of a folder that is complete for the plan and has this vimectl, else None."""
    try:
        found = manifest.check_folder(folder)
        manifest.check_matches_plan(found, plan, folder)
    except VimeError:
        return None
    digests = {entry.sha256 for entry in found.sources if entry.kind == "own-wheel"}
    return found if digests == {sha256_file(wheel)} else None


def _manifest(plan: ImagePlan, folder: Path, wheel: Path) -> SourceManifest:
    wheels = {sha256_file(path): path for path in (folder / "wheels").glob("*.whl")}
    entries = []
    for source in plan.sources:
        if source.kind == "wheel":
            path = next(wheels[digest] for digest in source.sha256 if digest in wheels)
        else:
            path = wheel if source.path == "vimectl" else folder / source.path
        entries.append(
            ManifestEntry(
                name=source.name,
                kind=source.kind,
                reason=source.reason,
                version=source.version,
                url=source.url,
                commit=source.commit,
                series=source.sha256[0] if source.kind == "patches" and path == wheel else "",
                path=path.relative_to(folder).as_posix(),
                size=path.stat().st_size,
                sha256=sha256_file(path),
            )
        )
    return SourceManifest(
        schema=manifest.SCHEMA,
        stack=plan.stack.name,
        machine=plan.machine,
        python=plan.image.python,
        sources=entries,
    )


def _is_present(source: ImageSource, folder: Path, archives: dict[str, str], wheels: set[str]) -> bool:
    if source.kind == "wheel":
        return not wheels.isdisjoint(source.sha256)
    # The wheel of vimectl, with the patches in it, is made every time.
    path = folder / source.path
    digests = [archives.get(source.path)] if source.kind == "git" else source.sha256
    return path.is_file() and sha256_file(path) in digests


def _remove_others(folder: Path, collected: SourceManifest) -> None:
    """Remove the files of a plan that was collected here before."""
    listed = {folder / entry.path for entry in collected.sources}
    for name in manifest.FOLDERS:
        for path in (folder / name).glob("*"):
            if path not in listed:
                path.unlink()


def _archive_digests(folder: Path) -> dict[str, str]:
    """Return the digests of finished archives by path: of an unfinished call, or from the manifest."""
    with suppress(OSError, ValueError):
        known: dict[str, str] = json.loads((folder / _WORK / _ARCHIVE_DIGESTS).read_text(encoding="utf-8"))
        return known
    with suppress(UsageError):
        sources = manifest.read_manifest(folder).sources
        return {entry.path: entry.sha256 for entry in sources if entry.kind == "git"}
    return {}


def _write_archive_digests(work: Path, archives: dict[str, str]) -> None:
    write_text_atomically(work / _ARCHIVE_DIGESTS, json.dumps(archives))
