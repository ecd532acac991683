"""Collect all sources of an image in one folder, so that the image can be built without a network.

After an interruption the same call resumes: a file is kept when it has the pinned digest, an archive when it
has the tree of its commit. The manifest is written last, so a folder that has one was complete then.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import platformdirs
from vime_runtime.spec.errors import UsageError, VimeError

from vimectl.env import vimectl_wheel
from vimectl.images import manifest, source_folder
from vimectl.images.manifest import SourceManifest
from vimectl.images.plan import ImagePlan, ImageSource
from vimectl.images.source_folder import OWN_ENTRIES, WORK
from vimectl.releases import git_source
from vimectl.releases.locked_files import download_locked
from vimectl.util.directory_lock import check_in_place, explain_disk_errors, lock_directory
from vimectl.util.directory_tree import DirectoryTree
from vimectl.util.phase_progress import PhaseProgress, ReportPhase


def default_folder(plan: ImagePlan) -> Path:
    """Return the folder in the user's cache that is used when the user names none."""
    return Path(platformdirs.user_cache_dir("vimectl")) / "images" / f"{plan.stack.name}-{plan.machine}"


def missing_sources(plan: ImagePlan, folder: Path) -> list[ImageSource]:
    """Return the sources that ``collect`` would download or make. Reads nothing but the folder."""
    try:
        with source_folder.open_folder(folder) as tree:
            wheels = source_folder.wheel_files(tree, plan)
            return [one for one in plan.sources if not source_folder.has_source(tree, one, wheels)]
    except UsageError:
        return list(plan.sources)


def collect(plan: ImagePlan, folder: Path, report: ReportPhase) -> SourceManifest:
    """Collect all sources of ``plan`` in ``folder`` and write the manifest.

    Raises:
        UsageError: the folder holds something that vimectl did not create, or a package index is malformed.
        CheckFailed: a wheel has another digest than the lock's, or a repository lacks the commit.
        MissingRequirement: a source cannot be reached, git or pip is missing, or the disk is full.
    """
    folder = folder.absolute()
    waiting = PhaseProgress(f"waiting for another `vimectl image` that collects in {folder}")
    lock = lock_directory(folder, lambda: report(waiting), lambda names: names - OWN_ENTRIES)
    disk_hint = "free some space, or name a folder on another disk; the same command then resumes"
    with lock as lock_fd, explain_disk_errors(folder, disk_hint), source_folder.open_folder(folder) as tree:
        work = folder / WORK
        report(PhaseProgress("making a wheel of vimectl itself"))
        shutil.rmtree(work / "vimectl", ignore_errors=True)  # left by an interrupted call
        source_folder.remove_links(tree)
        (work / "vimectl").mkdir(parents=True)
        wheel = vimectl_wheel.make_wheel(work / "vimectl")
        with suppress(VimeError):  # a complete folder is not touched: a build may be using it
            complete = source_folder.check_for_plan(folder, plan, wheel)
            shutil.rmtree(work)
            return complete
        (folder / manifest.FILE).unlink(missing_ok=True)
        (folder / "vimectl").mkdir(exist_ok=True)
        os.replace(wheel, folder / "vimectl" / wheel.name)
        (folder / "patches").mkdir(exist_ok=True)
        for source in plan.sources:
            if source.content is not None:
                (work / "copy").write_bytes(source.content)
                os.replace(work / "copy", folder / source.path)
        pins = [source.pin for source in plan.sources if source.pin]
        check_in_place(folder, lock_fd)
        wheels = download_locked(pins, folder / "wheels", plan.stack.origin, report, plan.wheel_target)
        _archive_repositories(plan, tree, lock_fd, report)
        check_in_place(folder, lock_fd)
        _remove_others(plan, folder, {folder / "vimectl" / wheel.name, *wheels})
        collected = source_folder.describe(tree, plan, folder / "vimectl" / wheel.name)
        fresh = work / manifest.FILE
        fresh.write_text(manifest.manifest_text(collected), encoding="utf-8")
        os.replace(fresh, folder / manifest.FILE)
        shutil.rmtree(work)
        return collected


def _archive_repositories(plan: ImagePlan, tree: DirectoryTree, lock_fd: int, report: ReportPhase) -> None:
    sources = [source for source in plan.sources if source.kind == "git"]
    for done, source in enumerate(sources):
        if source_folder.has_source(tree, source, {}):
            continue

        def on_line(line: str, done: int = done, name: str = source.name) -> None:
            detail = f"{name} {line}"
            report(PhaseProgress("downloading", done, len(sources), "repositories", detail=detail))

        git_source.archive(source, tree.root / source.path, tree.root / WORK / "git", lock_fd, on_line)


def _remove_others(plan: ImagePlan, folder: Path, wheels: set[Path]) -> None:
    """Remove the files of a plan that was collected here before."""
    wanted = wheels | {folder / source.path for source in plan.sources}
    for name in manifest.FOLDERS:
        for path in (folder / name).glob("*"):
            if path not in wanted:
                path.unlink()
