"""The schema of a stack file: one coherent set of versions, and where each fact comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version
from pydantic import AfterValidator, Field

from vimectl.toml import Strict


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as e:
        raise ValueError(str(e)) from e
    return text


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Specifier = Annotated[str, AfterValidator(_specifier)]


class StackTable(Strict):
    """``[stack]``: its name, what it computes on, and the interpreters and machines it exists for."""

    name: str
    description: str
    device: Literal["cpu", "npu", "cuda"]
    python: Specifier
    machines: list[Literal["x86_64", "aarch64"]]


class OriginFile(Strict):
    """One file that may be installed for a package, known by its digest."""

    name: str
    sha256: Sha256
    note: str


class Marker(Strict):
    """A line that an installed file must have: the proof that the right build was installed.

    ``path`` is relative to site-packages, ``pattern`` a regular expression that one of its lines matches.
    The file is read as text, never imported.
    """

    path: str
    pattern: str
    meaning: str


class Origin(Strict):
    """``[origin.PACKAGE]``: where a package comes from whose version number does not name one file.

    ``index`` is asked, for this package alone, when the user's own sources have none of ``files``.
    """

    index: str
    note: str
    files: Annotated[list[OriginFile], Field(min_length=1)]
    marker: Marker


class Commit(Strict):
    """``[commits.NAME]``: a dependency that is pinned by source commit because it has no release."""

    url: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Stack(Strict):
    """A whole stack file.

    ``packages`` gives the exact version of each package by the name people use for it;
    ``provided_by`` names the distributions that may provide it instead of its namesake.
    ``unwanted`` are distributions that break the stack when present, with the reason.
    ``omitted`` are distributions that a package asks for and the lock leaves out, with what that costs.
    ``patches`` names the patch series (package and version) the stack needs.
    ``notes`` says, fact by fact, where it comes from.
    """

    stack: StackTable
    packages: dict[str, str]
    provided_by: dict[str, list[str]] = Field(default_factory=dict)
    unwanted: dict[str, str] = Field(default_factory=dict)
    omitted: dict[str, str] = Field(default_factory=dict)
    patches: dict[str, str] = Field(default_factory=dict)
    cann: str | None = None
    commits: dict[str, Commit] = Field(default_factory=dict)
    origin: dict[str, Origin] = Field(default_factory=dict)
    notes: dict[str, str]

    @property
    def name(self) -> str:
        return self.stack.name

    def distributions(self, package: str) -> list[str]:
        """Return the distribution names that may provide ``package``, the preferred one first."""
        return self.provided_by.get(package, [package])

    def supports_python(self, version: str) -> bool:
        """Whether an interpreter of this version (``3.11.7``) can run the stack."""
        return SpecifierSet(self.stack.python).contains(Version(version), prereleases=True)
