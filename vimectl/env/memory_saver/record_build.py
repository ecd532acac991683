"""Record a build as known-good in the user's file or the machine's, with who, when and why."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock
from vime_runtime.spec.atomic_io import write_text_atomically
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from vimectl.env.memory_saver.known_builds import BuildsFile, KnownBuild, identify, user_builds_file
from vimectl.env.memory_saver.library_files import library_files
from vimectl.env.memory_saver.verify import SaverBuild, classify
from vimectl.util import toml

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
        UsageError: no note, nothing at the path, or a file that is not this library.
        CheckFailed: one of them is known to be bad.
        MissingRequirement: the user's file cannot be written.
    """
    if not note.strip():
        raise UsageError(
            "a build is recorded with the reason why it is good", "--note 'where it is from, what it passed'"
        )
    builds = [classify(file, None, None) for file in library_files(path)]
    fresh = [_known_build(build, note.strip(), by, at) for build in builds if not _is_recorded(build)]
    fresh = list({build.sha256: build for build in fresh}.values())  # a wheel may hold one twice
    if fresh:
        _add(into or user_builds_file(), fresh)
    return fresh


def _is_recorded(build: SaverBuild) -> bool:
    """Return True when a build is recorded already. Raises when it must not be recorded."""
    if build.verdict == "not-elf" or not build.exported:
        raise UsageError(
            f"{build.path}: not the torch_memory_saver library: {build.note}", "name another file"
        )
    if build.backend == "unknown":
        raise UsageError(
            f"{build.path}: not linked with an accelerator's runtime ({', '.join(build.needed)})",
            "only a build for Ascend, CUDA or ROCm can be recorded",
        )
    if build.machine not in ("x86_64", "aarch64"):
        raise UsageError(
            f"{build.path}: built for {build.machine}; known are x86_64 and aarch64", "name another file"
        )
    known = identify(build.md5, build.sha256)
    if known and known[0].verdict == "known-bad":
        raise CheckFailed(
            f"{build.path}: known to be bad: {known[0].name}: {known[0].note}",
            "use another build: `vimectl tms list` shows those that are known",
        )
    return known is not None and known[1] == "sha256"


def _known_build(build: SaverBuild, note: str, by: str | None, at: str | None) -> KnownBuild:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "name": f"{Path(build.path).name}, {build.backend}, {build.machine}, {build.sha256[:8]}",
        "verdict": "known-good",
        "backend": build.backend,
        "machine": build.machine,
        "sha256": build.sha256,
        "md5": build.md5,
        "note": note,
        "by": by or f"{_user()}@{socket.gethostname()}",
        "at": at or now,
    }
    return toml.validate(KnownBuild, values, build.path)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user id often has no name
        return str(os.getuid())


def _add(path: Path, builds: Sequence[KnownBuild]) -> None:
    """Append to a builds file atomically; its previous text is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            old = _HEADER
            if path.is_file():
                toml.load(BuildsFile, path)  # raises for a malformed file, which the user has to fix
                old = path.read_text(encoding="utf-8")
            write_text_atomically(path, old + "".join(_text(build) for build in builds))
    except OSError as e:
        raise MissingRequirement(
            f"{path}: cannot be written: {e.strerror or e}", "the build was not recorded"
        ) from e


def _text(build: KnownBuild) -> str:
    lines = [f"{key} = {_string(value)}" for key, value in build.model_dump(exclude_none=True).items()]
    return "\n".join(["", "[[build]]", *lines]) + "\n"


def _string(text: str) -> str:
    """Return a TOML string. JSON strings are the same, except for DEL and lone surrogates."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
