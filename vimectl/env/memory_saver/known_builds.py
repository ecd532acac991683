"""The known builds of the torch_memory_saver library: shipped, recorded for a machine, and by the user.

`record_build` adds one, with who, when and why.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import platformdirs
import psutil
from pydantic import Field, model_validator
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError
from vime_runtime.spec.strict import Strict

from vimectl.stacks.schema import Sha256
from vimectl.util import toml
from vimectl.util.host import ABSENT, Host

if TYPE_CHECKING:
    from vimectl.env.memory_saver.verify import SaverBuild

Match = Literal["sha256", "md5", "md5-prefix"]
# The builds for all users of a machine: an image records here the library that was built in it.
MACHINE_FILE = "/etc/vimectl/builds.toml"
_MATCHES = get_args(Match)  # strongest first
_HEADER = """\
# Builds of the torch_memory_saver library, recorded on this machine with `vimectl tms record`.
# They count like the builds that ship with vimectl. To forget one, delete its [[build]].
"""


class KnownBuild(Strict):
    """``[[build]]``: one library, identified by the digests that are known of it.

    ``by`` and ``at`` (UTC) say who recorded it and when; shipped builds have neither.
    """

    name: str
    verdict: Literal["known-good", "known-bad"]
    backend: Literal["ascend", "cuda", "rocm"]
    machine: Literal["x86_64", "aarch64"] | None = None
    sha256: Sha256 | None = None
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    md5_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8,31}$")] | None = None
    note: str
    by: str | None = None
    at: str | None = None

    @model_validator(mode="after")
    def _is_identified(self) -> KnownBuild:
        if not (self.sha256 or self.md5 or self.md5_prefix):
            raise ValueError("a build needs sha256, md5 or md5_prefix")
        return self

    def match(self, md5: str, sha256: str) -> Match | None:
        """Return which digest matches, or None. Only the strongest digest of this build is compared."""
        if self.sha256:
            return "sha256" if self.sha256 == sha256 else None
        if self.md5:
            return "md5" if self.md5 == md5 else None
        return "md5-prefix" if self.md5_prefix and md5.startswith(self.md5_prefix) else None


class BuildsFile(Strict):
    """The schema of ``builds.toml``."""

    build: list[KnownBuild] = Field(default_factory=list)


def user_builds_file() -> Path:
    """Return the file with the builds that the user recorded."""
    return Path(platformdirs.user_config_dir("vimectl"), "builds.toml").absolute()


def known_builds(host: Host | None = None) -> tuple[KnownBuild, ...]:
    """Return the shipped builds, those recorded for a machine (by default this one), and the user's.

    Raises UsageError when a file is malformed or cannot be read.
    """
    recorded = _in(host or Host(), MACHINE_FILE) + _in(Host(), str(user_builds_file()))
    return _shipped() + recorded


def identify(md5: str, sha256: str, known: Sequence[KnownBuild]) -> tuple[KnownBuild, Match] | None:
    """Return the known build with these digests and what matched, or None.

    A full digest wins over a partial one, and known-bad wins over known-good: recording can make an unknown
    build a known one, but never a bad one good.
    """
    found = [(build, match) for build in known if (match := build.match(md5, sha256))]
    return min(found, key=lambda one: (_MATCHES.index(one[1]), one[0].verdict == "known-good"), default=None)


def record_build(
    builds: Sequence[SaverBuild], note: str, into: Path | None = None, by: str = "", at: str = ""
) -> list[KnownBuild]:
    """Add libraries to the known-good builds, all or none; return those whose full digest was not known.

    ``into``, ``by`` and ``at`` override the user's file, the user and the current time.

    Raises:
        UsageError: no note, a file that is not this library, or a build for an unknown backend or machine.
        CheckFailed: one of them is known to be bad.
        MissingRequirement: the file of builds cannot be written.
    """
    if not note.strip():
        hint = "--note 'where it is from, what it passed'"
        raise UsageError("a build is recorded with the reason why it is good", hint)
    by = by or f"{psutil.Process().username()}@{socket.gethostname()}"
    at = at or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh: dict[str, KnownBuild] = {}  # by digest: a wheel may hold one twice
    for build in builds:
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
            name = f"{Path(build.path).name}, {build.backend}, {build.machine}, {build.sha256[:8]}"
            identity = {key: getattr(build, key) for key in ("backend", "machine", "sha256", "md5")}
            values = {
                "name": name,
                "verdict": "known-good",
                **identity,
                "note": note.strip(),
                "by": by,
                "at": at,
            }
            fresh[build.sha256] = toml.validate(KnownBuild, values, build.path)
    if fresh:
        _append(into or user_builds_file(), list(fresh.values()))
    return list(fresh.values())


def _append(path: Path, builds: Sequence[KnownBuild]) -> None:
    """Append to a builds file, in one write: another process may append too."""
    import tomlkit  # slow to import

    text = tomlkit.dumps({"build": [build.model_dump(exclude_none=True) for build in builds]})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{'' if file.tell() else _HEADER}\n{text}")
    except OSError as e:
        problem = f"{path}: cannot be written: {e.strerror or e}"
        raise MissingRequirement(problem, "the build was not recorded") from e


def _in(host: Host, file: str) -> tuple[KnownBuild, ...]:
    problem = host.problem(file)
    if problem == ABSENT:
        return ()
    if problem:
        raise UsageError(f"{file}: {problem}", "it has the recorded builds: make it a readable file")
    return tuple(toml.load(BuildsFile, host.path(file)).build)


@cache
def _shipped() -> tuple[KnownBuild, ...]:
    return tuple(toml.load(BuildsFile, Path(__file__).with_name("builds.toml")).build)
