"""Record a build of one's own as known-good: in the user's file or the machine's, with who, when and why."""

from __future__ import annotations

import getpass
import json
import os
import socket
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from vimectl.env.memory_saver.builds import BuildsFile, KnownBuild, identify, own_file
from vimectl.env.memory_saver.find import libraries
from vimectl.env.memory_saver.judge import Build, judge
from vimectl.util import toml

_HEADER = """\
# Builds of the torch_memory_saver library that were recorded on this machine with `vimectl tms record`.
# They count like those that vimectl knows by itself. To forget one, delete its [[build]].
"""


def record(
    path: Path, note: str, into: Path | None = None, by: str | None = None, at: str | None = None
) -> list[KnownBuild]:
    """Add the libraries at ``path`` to the user's known-good builds, all or none; return what was added.

    ``into`` is another file than the user's, ``by`` and ``at`` say it of somebody else and another moment
    than now. What is known by its full digest already is not added again.

    Raises:
        UsageError: no note, nothing at the path, or something that is not this library.
        CheckFailed: one of them is known to be bad.
        MissingRequirement: the user's file cannot be written.
    """
    if not note.strip():
        raise UsageError(
            "a build is recorded with the reason why it is good", "--note 'where it is from, what it passed'"
        )
    builds = [judge(file, None, None) for file in libraries(path)]
    fresh = [_known(build, note.strip(), by, at) for build in builds if not _refused(build)]
    fresh = list({build.sha256: build for build in fresh}.values())  # a wheel may hold one twice
    if fresh:
        _add(into or own_file(), fresh)
    return fresh


def _refused(build: Build) -> bool:
    """Whether there is nothing to record of a build. Raises when it must not be recorded."""
    if build.verdict == "not-elf" or not build.exported:
        raise UsageError(f"{build.path}: not the torch_memory_saver library: {build.note}")
    if build.backend == "unknown":
        raise UsageError(
            f"{build.path}: it is linked with no accelerator's runtime ({', '.join(build.needed)})",
            "only a build for Ascend, CUDA or ROCm can be recorded",
        )
    if build.machine not in ("x86_64", "aarch64"):
        raise UsageError(f"{build.path}: built for {build.machine}; known are x86_64 and aarch64")
    known = identify(build.md5, build.sha256)
    if known and known[0].verdict == "known-bad":
        raise CheckFailed(f"{build.path}: known to be bad: {known[0].name}: {known[0].note}")
    return known is not None and known[1] == "sha256"


def _known(build: Build, note: str, by: str | None, at: str | None) -> KnownBuild:
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
    except (KeyError, OSError):  # a container often runs as a number that has no name
        return str(os.getuid())


def _add(path: Path, builds: Sequence[KnownBuild]) -> None:
    """Append to the user's file, whole or not at all; what is in it already stays as it was written."""
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            old = _HEADER
            if path.is_file():
                toml.load(BuildsFile, path)  # a malformed file is for its owner to mend
                old = path.read_text(encoding="utf-8")
            _replace(path, old + "".join(_text(build) for build in builds))
    except OSError as e:
        raise MissingRequirement(
            f"{path}: cannot be written: {e.strerror or e}", "the build was not recorded"
        ) from e


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as fresh:
        try:
            fresh.write(text)
            fresh.flush()
            os.fsync(fresh.fileno())
            os.replace(fresh.name, path)
        except BaseException:
            os.unlink(fresh.name)
            raise


def _text(build: KnownBuild) -> str:
    lines = [f"{key} = {_string(value)}" for key, value in build.model_dump(exclude_none=True).items()]
    return "\n".join(["", "[[build]]", *lines]) + "\n"


def _string(text: str) -> str:
    """A string of TOML. JSON's are the same, but for DEL and halves of surrogate pairs."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
