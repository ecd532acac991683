"""Remove the directories of runs that have ended."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.doctor.facts.processes import read_run_processes
from vimectl.runs.run_directory import RunDirectory
from vimectl.util.directory_lock import explain_disk_errors
from vimectl.util.host import Host


def check_removable(run: RunDirectory) -> None:
    """Check that a directory is that of a run which has ended, and that no process of the run is left.

    Raises:
        UsageError: it is a link, or its run file is damaged.
        CheckFailed: the run is running, or processes of a lost run are.
    """
    name = run.path.name
    if run.path.is_symlink():
        raise UsageError(f"{run.path} is a link", f"give the directory itself: {run.path.resolve()}")
    schema, scratch = (str(run.document.get(key, "")) for key in ("schema", "scratch_dir"))
    if not schema.startswith("vimectl.run/") or not scratch:
        raise UsageError(f"{run.files.run_file} is not the file of a run", "remove the directory yourself")
    if run.state == "running":
        owner = run.running_owner
        if owner is None:
            hosts = " and ".join(sorted({one.host for one in run.owners.values()}))
            raise CheckFailed(f"{name} runs on {hosts}, or was killed there", "remove it there")
        raise CheckFailed(f"{name} is running", f"`vimectl runs stop {name}` stops it")
    left = [one.pid for one in read_run_processes(Host()) if one.scratch == scratch]
    if left:
        pids = " ".join(map(str, left))
        raise CheckFailed(f"processes of {name} are left: {pids}", f"`vimectl runs stop {name}` ends them")


def remove(run: RunDirectory) -> int:
    """Remove a run directory without following links. Returns the bytes that this has freed.

    The file that makes it a run directory is removed last, so that an interrupted removal can be repeated.

    Raises:
        UsageError, CheckFailed: as ``check_removable`` raises them.
        MissingRequirement: a file cannot be removed.
    """
    check_removable(run)
    freed = 0
    with explain_disk_errors(run.path, "check the permissions of the directory"):
        for path in _contents(run.path):
            if path != run.files.run_file:
                freed += _remove_one(path)
        freed += _remove_one(run.files.run_file) + _remove_one(run.path)
    return freed


def _contents(folder: Path) -> Iterator[Path]:
    """Yield everything below a directory, each directory after its contents, without following links."""
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _contents(Path(entry.path))
        yield Path(entry.path)


def _remove_one(path: Path) -> int:
    """Remove a file, link or empty directory; return the bytes that no other hard link keeps."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        path.rmdir()
    else:
        path.unlink()
        if status.st_nlink > 1:
            return 0
    return status.st_blocks * 512
