"""The schema of a stack file: one coherent set of versions, and where each fact comes from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version
from pydantic import AfterValidator, Field, model_validator
from vime_runtime.spec.strict import Strict


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as e:
        raise ValueError(str(e)) from e
    return text


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CommitId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
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


class Repository(Strict):
    """A commit and where it is."""

    url: str
    commit: CommitId


class Commit(Repository):
    """``[commits.NAME]``: a dependency that is pinned by source commit because it has no release.

    ``left_out`` are the paths of submodules that it is built without, each with the reason.
    """

    left_out: dict[str, str] = Field(default_factory=dict)


class Submodule(Repository):
    """A repository that another has at ``path``: git's tree of the other one names this commit."""

    path: str


class Images(Strict):
    """``[images]``: the image to start from on each generation of Atlas, with the tag of the release."""

    a2: str
    a3: str


class ImageTable(Strict):
    """``[image]``: what an image of this stack is made on, and what must come into it.

    ``python`` is the minor version of the interpreter in the base image, ``glibc`` the version of its C
    library: together they say which wheels fit. ``base`` is the image to start from where ``[images]`` names
    none. ``ships`` are the distributions that the base has, with how that is known: nothing is installed over
    them, and over what they need. ``built`` are those that come from a pinned source instead of a wheel.
    """

    python: Annotated[str, Field(pattern=r"^3\.[0-9]+$")]
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]+$")]
    base: str | None = None
    ships: dict[str, str] = Field(default_factory=dict)
    built: dict[str, str] = Field(default_factory=dict)


class Library(Strict):
    """``[libraries."lib*.so.N"]``: a library of the system that a package loads, and no package brings.

    ``needed_by`` is the file that loads it, and so where the fact comes from; ``install`` how to get it.
    """

    needed_by: str
    install: str


class MemorySaver(Strict):
    """``[memory_saver]``: the source that the torch_memory_saver library is built from.

    ``builds`` are the names of the known-good results in ``memory_saver/builds.toml``.
    """

    url: str
    tag: str
    commit: CommitId
    build: str
    builds: list[str]
    submodules: list[Submodule] = Field(default_factory=list)


# What a stack on NPUs consists of besides its packages; a file that lacks one of these says why.
_NPU_FACTS = (
    *("cann", "nnal", "triton-ascend", "ray", "transformers", "images", "patches"),
    *("megatron-lm", "megatron-bridge", "mindspeed", "mbridge", "memory_saver"),
)


class Stack(Strict):
    """A whole stack file.

    ``packages`` gives the exact version of each package by the name people use for it;
    ``ranges`` what they accept of others;
    ``provided_by`` names the distributions that may provide a package instead of its namesake.
    ``unwanted`` are distributions that break the stack when present, with the reason.
    ``omitted`` are distributions that a package asks for and the lock leaves out, with what that costs.
    ``libraries`` are those that have to come with the system.
    ``patches`` names the patch series (package and version) the stack needs.
    ``notes`` says, fact by fact or for a whole table, where it comes from, and ``unrecorded`` of a fact
    that is not there why not: a fact without a source, or a gap without a reason, is no valid file.
    """

    stack: StackTable
    packages: dict[str, str]
    ranges: dict[str, Specifier] = Field(default_factory=dict)
    provided_by: dict[str, list[str]] = Field(default_factory=dict)
    unwanted: dict[str, str] = Field(default_factory=dict)
    omitted: dict[str, str] = Field(default_factory=dict)
    libraries: dict[str, Library] = Field(default_factory=dict)
    patches: dict[str, str] = Field(default_factory=dict)
    cann: str | None = None
    nnal: str | None = None
    commits: dict[str, Commit] = Field(default_factory=dict)
    images: Images | None = None
    image: ImageTable | None = None
    memory_saver: MemorySaver | None = None
    origin: dict[str, Origin] = Field(default_factory=dict)
    notes: dict[str, str]
    unrecorded: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_sources(self) -> Stack:
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
        """Every fact of the file, and the table it stands in."""
        tables: dict[str, Any] = {
            "packages": self.packages,
            "ranges": self.ranges,
            "commits": self.commits,
        }
        facts = {name: table for table, names in tables.items() for name in names}
        single = ("cann", "nnal", "images", "image", "memory_saver", "patches")
        facts |= {name: name for name in single if getattr(self, name)}
        return facts | {"python": "python", "machines": "machines"}

    def source(self, fact: str) -> str:
        """Return where a fact comes from: its own note or that of its table; "" when none says."""
        return self.notes.get(fact) or self.notes.get(self._facts().get(fact, ""), "")

    @property
    def tested(self) -> bool:
        """Whether the stack is more than recorded: it has its patch series.

        A series is in the tree only when ``tests/upstream`` applies, verifies and reverts it on the released
        sources of its package; a stack without one is what its releases' documents say, and no more.
        """
        return bool(self.patches)

    @property
    def name(self) -> str:
        return self.stack.name

    def distributions(self, package: str) -> list[str]:
        """Return the distribution names that may provide ``package``, the preferred one first."""
        return self.provided_by.get(package, [package])

    def supports_python(self, version: str) -> bool:
        """Whether an interpreter of this version (``3.11.7``) can run the stack."""
        return SpecifierSet(self.stack.python).contains(Version(version), prereleases=True)
