"""The schema of a stack file: a set of versions that belong together, and the source of each fact."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from packaging.version import Version
from pydantic import AfterValidator, Field, PrivateAttr, model_validator
from vime_runtime.spec.strict import Strict

from vimectl.stacks.choices import Machine


def _specifier(text: str) -> str:
    SpecifierSet(text)  # raises InvalidSpecifier, a ValueError
    return text


def _wheel(name: str) -> str:
    parse_wheel_filename(name)  # raises InvalidWheelFilename, a ValueError
    return name


def _requirement(text: str) -> str:
    Requirement(text)  # raises InvalidRequirement, a ValueError
    return text


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CommitId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Specifier = Annotated[str, AfterValidator(_specifier)]


MinorVersion = Annotated[str, Field(pattern=r"^3\.[0-9]+$")]


class StackTable(Strict):
    """``[stack]``: its name, and the device, Python versions and machines that it is for."""

    name: str = Field(description="Name of the stack, as `--stack` takes it.")
    description: str = Field(description="One line for `vimectl stack list`.")
    device: Literal["cpu", "npu"] = Field(description="Kind of device that the stack runs on.")
    python: Specifier = Field(description='Python versions that can run the stack: ">=3.10,<3.13".')
    machines: list[Machine] = Field(description="CPU architectures, as `uname -m` names them.")
    lock_python: MinorVersion | None = Field(
        default=None, description="The one minor version of Python that the lock is for; default: all."
    )


class OriginFile(Strict):
    """A wheel that may be installed for a package, identified by its digest."""

    name: Annotated[str, AfterValidator(_wheel)] = Field(description="File name of the wheel.")
    sha256: Sha256 = Field(description="SHA-256 of the wheel.")
    note: str = Field(description="Where the digest comes from.")

    @property
    def version(self) -> str:
        """The version, with the local suffix of the build."""
        return str(parse_wheel_filename(self.name)[1])

    def is_for(self, machine: str) -> bool:
        """Return True when the wheel is for a machine as uname(1) names it."""
        return any(tag.platform.endswith(machine) for tag in parse_wheel_filename(self.name)[3])


class Marker(Strict):
    """A line that an installed file must contain, as evidence that the right build is installed.

    The file is read as text, never imported.
    """

    path: str = Field(description="Path of the file, relative to site-packages.")
    pattern: str = Field(description="Regular expression that one of its lines matches.")
    meaning: str = Field(description="What the line proves.")


class Origin(Strict):
    """``[origin.PACKAGE]``: the source of a package whose version does not identify one file.

    ``index`` is used for this package only, when the user's own sources have none of ``files``. The lock has
    no pin of the package for a machine without any of them.
    """

    index: str = Field(description="URL of the package index.")
    note: str = Field(description="Why the version does not identify one file.")
    files: list[OriginFile] = Field(
        default_factory=list, description="The wheels that may be installed, identified by their digests."
    )
    marker: Marker | None = None

    def files_for(self, machine: str) -> list[OriginFile]:
        """Return the files for a machine as uname(1) names it."""
        return [file for file in self.files if file.is_for(machine)]


class SourceBuild(Strict):
    """``[sources.PACKAGE]``: a package that an environment installs from its source archive."""

    reason: str = Field(description="Why it is built from source.")
    requirements: str = Field(description="File in the archive that has what the package requires.")
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of the build."
    )
    needs_cann: bool = Field(default=False, description="The build compiles against CANN.")


class PinnedCommit(Strict):
    """A dependency that is pinned to a commit because it has no release."""

    url: str = Field(description="URL of the git repository.")
    commit: CommitId = Field(description="The commit, 40 hexadecimal digits.")
    left_out: dict[str, str] = Field(
        default_factory=dict,
        description="Paths of submodules, each with the reason why it is built without.",
    )


class PinnedPackage(PinnedCommit):
    """``[commits.NAME]``: a Python package that is pinned to a commit."""

    distribution: str = Field(
        default="",
        description="Name of its distribution. Without one the doctor does not look for it, and no "
        "environment has it.",
    )
    version: str = Field(default="", description="Version of the distribution at the commit.")
    build_requires: list[Annotated[str, AfterValidator(_requirement)]] = Field(
        default_factory=list, description="Requirements of its build."
    )


class BaseImages(Strict):
    """``[images]``: the base image for each generation of Atlas, with the tag of the release."""

    a2: str = Field(description="Base image for Atlas A2.")
    a3: str = Field(description="Base image for Atlas A3.")


class ImageTable(Strict):
    """``[image]``: the base image's interpreter, and the packages that come from elsewhere than the lock.

    Its Python and its glibc determine which wheels are compatible.
    """

    python: MinorVersion = Field(description="Minor version of Python in the base image.")
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]+$")] = Field(
        description="Version of glibc in the base image."
    )
    base: str | None = Field(default=None, description="The base image, if `[images]` has none.")
    ships: dict[str, str] = Field(
        default_factory=dict,
        description="Distributions of the base image, each with the evidence. They and their requirements "
        "are not installed again.",
    )
    built: dict[str, str] = Field(
        default_factory=dict,
        description="Distributions that are built from a pinned source instead of installed from a wheel, "
        "each with the reason.",
    )


class SystemLibrary(Strict):
    """``[libraries."lib*.so.N"]``: a system library that a package loads and no package contains."""

    needed_by: str = Field(description="The file that loads it: the source of the fact.")
    install: str = Field(description="How to get it.")


class MemorySaverSource(PinnedCommit):
    """``[memory_saver]``: the source of the torch_memory_saver library."""

    tag: str = Field(description="Tag of the commit.")
    build: str = Field(description="How the library is built.")
    builds: list[str] = Field(description="Names of its known-good builds: `vimectl tms list`.")


# The facts about an NPU stack, in addition to its packages; a file that lacks one has to give the reason.
_NPU_FACTS = (
    *("cann", "nnal", "triton-ascend", "ray", "transformers", "images", "patches"),
    *("megatron-lm", "mindspeed", "memory_saver"),
)


class Stack(Strict):
    """A stack file, merged with what it extends.

    A fact without a source or a missing fact without a reason is an error where the file extends no other.
    """

    extends: str | None = Field(
        default=None, description="The stack that it extends: a name, or the path of a file relative to it."
    )
    stack: StackTable
    packages: dict[str, str] = Field(description="Exact version of each package, by its usual name.")
    ranges: dict[str, Specifier] = Field(
        default_factory=dict, description="Versions of other packages that they accept."
    )
    constraints: dict[str, list[Annotated[str, AfterValidator(_requirement)]]] = Field(
        default_factory=dict,
        description="By package what it needs and its metadata does not say, as requirements. They apply to "
        "what is installed.",
    )
    provided_by: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Distributions that may provide a package instead of the one of its name.",
    )
    unwanted: dict[str, str] = Field(
        default_factory=dict,
        description="Distributions that break the stack when present, with the reason.",
    )
    omitted: dict[str, str] = Field(
        default_factory=dict,
        description="Distributions that a package requires and the lock leaves out, with the consequence.",
    )
    lock_overrides: list[Annotated[str, AfterValidator(_requirement)]] = Field(
        default_factory=list,
        description="Requirements that replace in the lock those of all packages on the same distribution.",
    )
    lock_without: dict[str, str] = Field(
        default_factory=dict,
        description="Distributions that a package requires and an environment from the lock does without, "
        "with the consequence or reason. Other installations of the stack may have them.",
    )
    sources: dict[str, SourceBuild] = Field(
        default_factory=dict, description="Packages that are built from their source archives."
    )
    libraries: dict[str, SystemLibrary] = Field(
        default_factory=dict, description="System libraries that are needed."
    )
    patches: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Patch series on each package, the bottom one first: the version of a series that "
        "vimectl ships, or a directory.",
    )
    targets: dict[str, str] = Field(
        default_factory=dict,
        description="Directory that holds a package, if that is not the installed one.",
    )
    cann: str | None = Field(default=None, description="Version of CANN.")
    nnal: str | None = Field(default=None, description="Version of NNAL, the acceleration library of CANN.")
    commits: dict[str, PinnedPackage] = Field(
        default_factory=dict, description="Python packages that are pinned to a commit."
    )
    images: BaseImages | None = None
    image: ImageTable | None = None
    memory_saver: MemorySaverSource | None = None
    origin: dict[str, Origin] = Field(
        default_factory=dict, description="Sources of packages whose version does not identify one file."
    )
    notes: dict[str, str] = Field(description="The source of each fact or table.")
    unrecorded: dict[str, str] = Field(
        default_factory=dict, description="The reason for each fact that the file lacks."
    )
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
        single = (
            "constraints",
            "lock_overrides",
            "cann",
            "nnal",
            "images",
            "image",
            "memory_saver",
            "patches",
        )
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

    @property
    def markers(self) -> dict[str, Marker]:
        """The marker of each package whose version does not tell its build."""
        return {name: one.marker for name, one in self.origin.items() if one.marker}

    @property
    def lock_pythons(self) -> str:
        """The Python versions that the lock can be installed for, as a specifier."""
        return f"=={self.stack.lock_python}.*" if self.stack.lock_python else self.stack.python

    def supports_python(self, version: str) -> bool:
        """Return True when an interpreter of this version (``3.11.7``) can run the stack."""
        return SpecifierSet(self.stack.python).contains(Version(version), prereleases=True)
