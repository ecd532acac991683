"""Record a build as known-good in the user's file or the machine's, with who, when and why."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime, timezone
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from vimectl.env.memory_saver.known_builds import KnownBuild, identify, known_builds, user_builds_file
from vimectl.env.memory_saver.verify import SaverBuild, verify_path
from vimectl.util import toml
from vimectl.util.host import Host

_HEADER = """\
# Builds of the torch_memory_saver library, recorded on this machine with `vimectl tms record`.
# They count like the builds that ship with vimectl. To forget one, delete its [[build]].
"""


def record_build(
    path: Path, note: str, into: Path | None = None, by: str | None = None, at: str | None = None
) -> list[KnownBuild]:
    """Add the libraries at ``path`` to the known-good builds, all or none; return those that were added.

    ``into``, ``by`` and ``at`` override the user's file, the user and the current time. A build that is known
    by its full digest is not added again.

    Raises:
        UsageError: no note, nothing at the path, a file that is not this library, a malformed file of builds.
        CheckFailed: one of them is known to be bad.
        MissingRequirement: the file of builds cannot be written.
    """
    if not note.strip():
        raise UsageError(
            "a build is recorded with the reason why it is good", "--note 'where it is from, what it passed'"
        )
    by = by or f"{_user()}@{socket.gethostname()}"
    at = at or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh: dict[str, KnownBuild] = {}  # by digest: a wheel may hold one twice
    for build in verify_path(path, Host(), None):
        known = identify(build.md5, build.sha256, known_builds())
        if known and known[0].verdict == "known-bad":
            raise CheckFailed(
                f"{build.path}: known to be bad: {known[0].name}: {known[0].note}",
                "use another build: `vimectl tms list` shows those that are known",
            )
        if build.hook_mode is None:
            problem = "not the torch_memory_saver library: not an ELF library with a function tms_pause"
            raise UsageError(f"{build.path}: {problem}", "name another file")
        if known is None or known[1] != "sha256":
            fresh[build.sha256] = _known_build(build, note.strip(), by, at)
    if fresh:
        _append(into or user_builds_file(), list(fresh.values()))
    return list(fresh.values())


def _known_build(build: SaverBuild, note: str, by: str, at: str) -> KnownBuild:
    """Return the entry of a build. Raises UsageError for another backend or machine."""
    name = f"{Path(build.path).name}, {build.backend}, {build.machine}, {build.sha256[:8]}"
    identity = {key: getattr(build, key) for key in ("backend", "machine", "sha256", "md5")}
    values = {"name": name, "verdict": "known-good", **identity, "note": note, "by": by, "at": at}
    return toml.validate(KnownBuild, values, build.path)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user id often has no name
        return str(os.getuid())


def _append(path: Path, builds: list[KnownBuild]) -> None:
    """Append to a builds file, in one write: another process may append too."""
    import tomlkit  # slow to import

    text = tomlkit.dumps({"build": [build.model_dump(exclude_none=True) for build in builds]})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{'' if file.tell() else _HEADER}\n{text}")
    except OSError as e:
        raise MissingRequirement(
            f"{path}: cannot be written: {e.strerror or e}", "the build was not recorded"
        ) from e
