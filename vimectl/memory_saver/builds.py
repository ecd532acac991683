"""The known builds of the torch_memory_saver library: `builds.toml` and its schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vimectl import toml
from vimectl.stack.schema import Sha256

Match = Literal["sha256", "md5", "md5-prefix"]


class KnownBuild(toml.Strict):
    """``[[build]]``: one library, by as much of its digests as is known."""

    name: str
    verdict: Literal["known-good", "known-bad"]
    backend: Literal["ascend", "cuda", "rocm"]
    machine: Literal["x86_64", "aarch64"] | None = None
    sha256: Sha256 | None = None
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    md5_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8,31}$")] | None = None
    note: str

    @model_validator(mode="after")
    def _is_identified(self) -> KnownBuild:
        if not (self.sha256 or self.md5 or self.md5_prefix):
            raise ValueError("a build needs sha256, md5 or md5_prefix")
        return self

    def match(self, md5: str, sha256: str) -> Match | None:
        """Return by what these digests are this build's, or None; the strongest known digest decides."""
        if self.sha256:
            return "sha256" if self.sha256 == sha256 else None
        if self.md5:
            return "md5" if self.md5 == md5 else None
        return "md5-prefix" if self.md5_prefix and md5.startswith(self.md5_prefix) else None


class BuildsFile(toml.Strict):
    """The whole of ``builds.toml``."""

    build: list[KnownBuild]


@cache
def known_builds() -> tuple[KnownBuild, ...]:
    """Return the known builds, in the order of the file."""
    return tuple(toml.load(BuildsFile, Path(__file__).with_name("builds.toml")).build)


def identify(md5: str, sha256: str) -> tuple[KnownBuild, Match] | None:
    """Return the known build with these digests and what matched, or None."""
    for build in known_builds():
        match = build.match(md5, sha256)
        if match:
            return build, match
    return None
