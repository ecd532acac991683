"""The schema of a stack file: a set of versions that belong together, and the source of each fact."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import AfterValidator, Field, PrivateAttr, model_validator
from vime_runtime.spec.strict import Strict


def _specifier(text: str) -> str:
    SpecifierSet(text)  # raises InvalidSpecifier, a ValueError
    return text


def _requirement(text: str) -> str:
    Requirement(text)  # raises InvalidRequirement, a ValueError
    return text


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CommitId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Specifier = Annotated[str, AfterValidator(_specifier)]


class StackTable(Strict):
    """``[stack]``: its name, and the device, Python versions and machines that it is for."""

    name: str
    description: str
    device: Literal["cpu", "npu"]
    python: Specifier
    machines: list[Literal["x86_64", "aarch64"]]


class OriginFile(Strict):
    """A file that may be installed for a package, identified by its digest."""

    name: str
    sha256: Sha256
    note: str


class Marker(Strict):
    """A line that an installed file must contain, as evidence that the right build is installed.

    ``path`` is relative to site-packages, ``pattern`` a regular expression that one of its lines matches.
    The file is read as text, never imported.
    """

    path: str
    pattern: str
    meaning: str


class Origin(Strict):
    """``[origin.PACKAGE]``: the source of a package whose version does not identify one file.

    ``index`` is used for this package only, when the user's own sources have none of ``files``.
    """

    index: str
    note: str
    files: Annotated[list[OriginFile], Field(min_length=1)]
    marker: Marker


class PinnedCommit(Strict):
    """A dependency that is pinned to a commit because it has no release.

    ``left_out`` has the paths of its submodules, each with the reason why it is built without.
    """

    url: str
    commit: CommitId
    left_out: dict[str, str] = Field(default_factory=dict)


class PinnedPackage(PinnedCommit):
    """``[commits.NAME]``: a Python package that is pinned to a commit.

    ``distribution`` is the name of its distribution, ``version`` the version of that at the commit. Without a
    distribution the doctor does not look for it.
    """

    distribution: str = ""
    version: str = ""


class BaseImages(Strict):
    """``[images]``: the base image for each generation of Atlas, with the tag of the release."""

    a2: str
    a3: str


class ImageTable(Strict):
    """``[image]``: the base image's interpreter, and the packages that come from elsewhere than the lock.

    ``python`` (minor version) and ``glibc`` of the base image determine which wheels are compatible. ``base``
    is the base image where ``[images]`` has none. ``ships`` has the distributions of the base image, each
    with the evidence: they and their requirements are not installed again. ``built`` has those that are built
    from a pinned source instead of installed from a wheel.
    """

    python: Annotated[str, Field(pattern=r"^3\.[0-9]+$")]
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]+$")]
    base: str | None = None
    ships: dict[str, str] = Field(default_factory=dict)
    built: dict[str, str] = Field(default_factory=dict)


class SystemLibrary(Strict):
    """``[libraries."lib*.so.N"]``: a system library that a package loads and no package contains.

    ``needed_by`` is the file that loads it, which is the source of the fact; ``install`` says how to get it.
    """

    needed_by: str
    install: str


class MemorySaverSource(PinnedCommit):
    """``[memory_saver]``: the source of the torch_memory_saver library.

    ``builds`` are the names of its known-good builds in ``memory_saver/builds.toml``.
    """

    tag: str
    build: str
    builds: list[str]


# The facts about an NPU stack, in addition to its packages; a file that lacks one has to give the reason.
_NPU_FACTS = (
    *("cann", "nnal", "triton-ascend", "ray", "transformers", "images", "patches"),
    *("megatron-lm", "mindspeed", "memory_saver"),
)


class Stack(Strict):
    """A stack file, merged with what it extends.

    ``extends`` is the stack that it extends, a name or the path of a file relative to it;
    ``packages`` has the exact version of each package, by its usual name;
    ``ranges`` the versions of other packages that they accept;
    ``constraints`` what a package needs and its metadata does not say, as requirements: they apply to what is
    installed;
    ``provided_by`` the distributions that may provide a package instead of the one of its name;
    ``unwanted`` distributions that break the stack when present, with the reason;
    ``omitted`` distributions that a package requires and the lock leaves out, with the consequence;
    ``libraries`` the system libraries that are needed;
    ``patches`` the patch series on each package, the bottom one first: the version of a series that vimectl
    ships, or a directory;
    ``targets`` the directory that holds a package, where that is not the installed one;
    ``notes`` the source of each fact or table, and ``unrecorded`` the reason for each missing fact. A fact
    without a source or a missing fact without a reason is an error where the file extends no other.
    """

    extends: str | None = None
    stack: StackTable
    packages: dict[str, str]
    ranges: dict[str, Specifier] = Field(default_factory=dict)
    constraints: dict[str, list[Annotated[str, AfterValidator(_requirement)]]] = Field(default_factory=dict)
    provided_by: dict[str, list[str]] = Field(default_factory=dict)
    unwanted: dict[str, str] = Field(default_factory=dict)
    omitted: dict[str, str] = Field(default_factory=dict)
    libraries: dict[str, SystemLibrary] = Field(default_factory=dict)
    patches: dict[str, list[str]] = Field(default_factory=dict)
    targets: dict[str, str] = Field(default_factory=dict)
    cann: str | None = None
    nnal: str | None = None
    commits: dict[str, PinnedPackage] = Field(default_factory=dict)
    images: BaseImages | None = None
    image: ImageTable | None = None
    memory_saver: MemorySaverSource | None = None
    origin: dict[str, Origin] = Field(default_factory=dict)
    notes: dict[str, str]
    unrecorded: dict[str, str] = Field(default_factory=dict)
    _argument: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _has_sources(self) -> Stack:
        if self.extends:
            return self  # what a project changes is the choice of its user
        without = [fact for fact in self._facts() if not self.source(fact)]
        if without:
            raise ValueError(f"no note says where these come from: {', '.join(without)}")
        if self.stack.device == "npu":
            there = self._facts() | self.unrecorded.keys()
            gaps = [fact for fact in _NPU_FACTS if fact not in there]
            if gaps:
                raise ValueError(f"neither recorded nor in [unrecorded] with the reason: {', '.join(gaps)}")
        return self

    def _facts(self) -> dict[str, str]:
        """Return every fact of the file with its table."""
        facts = {name: table for table in ("packages", "ranges", "commits") for name in getattr(self, table)}
        single = ("constraints", "cann", "nnal", "images", "image", "memory_saver", "patches")
        facts |= {name: name for name in single if getattr(self, name)}
        return facts | {"python": "python", "machines": "machines"}

    def source(self, fact: str) -> str:
        """Return the source of a fact: its own note, that of its table, or ""."""
        return self.notes.get(fact) or self.notes.get(self._facts().get(fact, ""), "")

    @property
    def tested(self) -> bool:
        """True when the stack has patch series.

        ``tests/upstream`` applies, verifies and reverts every series on the released sources of its package.
        The versions of a stack without patch series are from the documentation of its releases only.
        """
        return bool(self.patches)

    @property
    def series(self) -> list[tuple[str, str]]:
        """Every series with its package, in the order of ``patches``."""
        return [(package, entry) for package, entries in self.patches.items() for entry in entries]

    @property
    def name(self) -> str:
        return self.stack.name

    @property
    def argument(self) -> str:
        """The name or the path of a file that is the ``--stack`` of this stack."""
        return self._argument or self.name

    @property
    def title(self) -> str:
        """The name for people, with the stack that it extends."""
        return f"{self.name} (extends {self.extends})" if self.extends else self.name

    def distributions(self, package: str) -> list[str]:
        """Return the distribution names that may provide ``package``, the preferred one first."""
        return self.provided_by.get(package, [package])

    def supports_python(self, version: str) -> bool:
        """Return True when an interpreter of this version (``3.11.7``) can run the stack."""
        return SpecifierSet(self.stack.python).contains(Version(version), prereleases=True)
