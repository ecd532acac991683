"""Read the mounted file systems, and where a run keeps its temporary files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import Host
from vimectl.util.scratch_directory import scratch_parent

# A link to /proc/self/mounts, which every process has: proc_pid_mounts(5).
MOUNTS = "/proc/self/mounts"


@dataclass(frozen=True)
class Mount:
    """A mounted file system: the directory, its type, and its options."""

    directory: str
    kind: str
    options: tuple[str, ...]


def read_mount(host: Host, path: str) -> Mount:
    """Return the file system of a path: that with the longest matching directory, the last of several.

    Raises:
        Unavailable: the mounts cannot be read.
    """
    lines = [line.split(" ") for line in (host.read(MOUNTS) or "").splitlines()]
    fields = [line for line in lines if len(line) > 3]
    mounts = [Mount(_unescape(one[1]), one[2], tuple(one[3].split(","))) for one in fields]
    above = [one for one in mounts if f"{path.rstrip('/')}/".startswith(f"{one.directory.rstrip('/')}/")]
    if not above:
        raise Unavailable(f"{MOUNTS} has no file system of {path}")
    return max(reversed(above), key=lambda one: len(one.directory))


def read_scratch_parent(host: Host) -> str:
    """Return the directory in which a run started here creates its scratch directory."""
    return scratch_parent(read_temporary(host))


def read_temporary(host: Host) -> str:
    """Return the directory for temporary files, as Python's tempfile finds it."""
    names = (host.environment.get(name, "") for name in ("TMPDIR", "TEMP", "TMP"))
    given = (name.rstrip("/") or "/" for name in names if name.startswith("/"))
    return next((name for name in given if host.is_dir(name)), "/tmp")  # nosec B108 # as Python's tempfile


def _unescape(text: str) -> str:
    r"""Return a name with the escapes of proc_pid_mounts(5) replaced: ``\040`` is a blank."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
