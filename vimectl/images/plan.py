"""What an image would be built from: every pin, and why it is that one. Nothing is fetched, nothing built."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import UsageError, unknown

from vimectl import __version__, env
from vimectl.patches import catalog as series
from vimectl.stacks.catalog import is_stack_path, load_stack, lock_path, stack_names
from vimectl.stacks.catalog import stack_file as stack_path
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import ImageTable, Stack

Kind = Literal["stack", "lock", "wheel", "git", "patches", "own-wheel"]
Chip = Literal["a2", "a3"]

_LOCKS = Path(__file__).parent / "locks"


@dataclass(frozen=True)
class Submodule:
    """A repository that belongs into a source at ``path``."""

    path: str
    url: str
    commit: str


@dataclass(frozen=True)
class Source:
    """One thing that goes into an image.

    ``version`` is that of a wheel or a patch series; ``url`` and ``commit`` are a git source's, whose commit
    is its digest; our own wheel has the commit that it is made from, "" when that is none. ``sha256`` are the
    digests that are accepted: of a wheel's files, or of a whole series.
    ``submodules`` come into the archive of a repository, those at the paths ``left_out`` do not. ``pin`` is a
    wheel's line of the lock.
    """

    name: str
    kind: Kind
    reason: str
    version: str = ""
    url: str = ""
    commit: str = ""
    sha256: tuple[str, ...] = ()
    submodules: tuple[Submodule, ...] = ()
    left_out: tuple[str, ...] = ()
    pin: Pin | None = field(default=None, compare=False)

    @property
    def path(self) -> str:
        """Where it lies in the folder of sources; a wheel's name and a series' place are known once it is
        there, so theirs is the folder."""
        match self.kind:
            case "stack":
                return "stack.toml"
            case "lock":
                return "wheels.txt"
            case "git":
                return f"sources/{self.name}-{self.commit}.tar.gz"
            case "wheel":
                return "wheels"
            case _:  # our wheel carries the patches
                return "vimectl"


@dataclass(frozen=True)
class Plan:
    """An image to be built: of which stack, on which base, for which chips and machine, from what.

    ``chip`` is the generation of NPU, None on another device. ``stack_argument`` is how the stack was named;
    ``stack_file`` and ``lock`` are where the two are on this machine.
    """

    stack: Stack
    stack_argument: str
    stack_file: Path
    lock: Path
    chip: Chip | None
    machine: str
    image: ImageTable
    base: str
    base_reason: str
    sources: tuple[Source, ...]

    @property
    def arguments(self) -> dict[str, str]:
        """The build arguments that the stack decides."""
        given = {"STACK": self.stack.name, "BASE_NAME": self.base}
        return given | ({"CHIP": self.chip} if self.chip else {})


def make(stack: str, chip: str | None = None, base: str | None = None, machine: str | None = None) -> Plan:
    """Plan the image of a stack, given by its name or its file.

    Args:
        chip: the generation of NPU; a2 when not given. Nothing for a stack on another device.
        base: an image to start from instead of the stack's.
        machine: ``aarch64`` or ``x86_64``; by default this one when the stack is for it.

    Raises:
        UsageError: the stack is unknown, or lacks what an image takes; a chip or machine that it is not for.
    """
    loaded = load_stack(stack)
    image, lock = _image(loaded), _lock(stack)
    of = _chip(loaded, chip)
    base, base_reason = _base(loaded, image, of, base)
    return Plan(
        stack=loaded,
        stack_argument=stack,
        stack_file=stack_path(stack),
        lock=lock,
        chip=of,
        machine=_machine(loaded, machine),
        image=image,
        base=base,
        base_reason=base_reason,
        sources=tuple(_sources(loaded, lock)),
    )


def plannable() -> list[str]:
    """The names of the stacks that an image can be planned of."""
    return [name for name in stack_names() if load_stack(name).image and _lock_path(name)]


def _image(stack: Stack) -> ImageTable:
    if stack.image is None:
        raise UsageError(
            f"the stack {stack.name} does not say what an image of it is made on ([image])",
            f"stacks with images: {', '.join(plannable())}",
        )
    if stack.stack.device == "npu" and stack.memory_saver is None:
        raise UsageError(
            f"the stack {stack.name} records no memory saver: {stack.unrecorded['memory_saver']}",
            f"stacks with images: {', '.join(plannable())}",
        )
    return stack.image


def _lock(name: str) -> Path:
    found = _lock_path(name)
    if found is None:
        raise UsageError(
            f"{name}: no lock of the wheels that go into its image",
            f"put one beside the file: {Path(name).with_suffix('.txt')}"
            if is_stack_path(name)
            else f"stacks with images: {', '.join(plannable())}",
        )
    return found


def _lock_path(name: str) -> Path | None:
    """The lock of what is installed into an image: of the whole stack, or of what the base image lacks."""
    own = stack_path(name).with_suffix(".txt") if is_stack_path(name) else _LOCKS / f"{name}.txt"
    return own if own.is_file() else lock_path(name)


def _chip(stack: Stack, chip: str | None) -> Chip | None:
    if stack.stack.device != "npu":
        if chip:
            raise UsageError(
                f"the stack {stack.name} is for the {stack.stack.device}, not for chips ({chip})"
            )
        return None
    for known in get_args(Chip):
        if known == (chip or "a2"):
            return cast(Chip, known)
    raise unknown("chip", chip or "", get_args(Chip))


def _base(stack: Stack, image: ImageTable, chip: Chip | None, base: str | None) -> tuple[str, str]:
    if base:
        return base, "given with --base"
    found = image.base or (stack.images and chip and getattr(stack.images, chip))
    if not found:
        raise UsageError(f"the stack {stack.name} names no image to start from", "name one with --base IMAGE")
    why = stack.source("image" if image.base else "images")
    return found, f"{why}; a tag, so what it is today is recorded by its digest in the provenance"


def _machine(stack: Stack, machine: str | None) -> str:
    known: list[str] = list(stack.stack.machines)
    if machine is None:
        return platform.machine() if platform.machine() in known else known[0]
    if machine not in known:
        raise unknown("machine", machine, known)
    return machine


def _sources(stack: Stack, lock: Path) -> Iterator[Source]:
    yield Source(stack.name, "stack", "says which versions belong together")
    yield Source("wheels", "lock", "says which wheels are installed, each by its digests")
    why = "applies the patches, verifies the result, launches the runtime"
    yield Source("vimectl", "own-wheel", why, __version__, commit=env.revision())
    for package, version in stack.patches.items():
        digest = series.find(package, version).digest
        yield Source(package, "patches", stack.source("patches"), version, sha256=(digest,))
    for name, commit in stack.commits.items():
        why = "; ".join([stack.source(name), *(f"without {p}: {r}" for p, r in commit.left_out.items())])
        yield Source(name, "git", why, url=commit.url, commit=commit.commit, left_out=tuple(commit.left_out))
    if saver := stack.memory_saver:
        yield Source(
            saver.url.rstrip("/").rpartition("/")[2],
            "git",
            f"torch_memory_saver is built from it, tag {saver.tag}; {stack.source('memory_saver')}",
            url=saver.url,
            commit=saver.commit,
            submodules=tuple(Submodule(one.path, one.url, one.commit) for one in saver.submodules),
        )
    pins = read_lock(lock).values()
    says_why = any(pin.asked_by for pin in pins)
    for pin in pins:
        why = _why(stack, pin, says_why)
        yield Source(pin.name, "wheel", why, pin.version, sha256=tuple(sorted(pin.hashes)), pin=pin)


def _why(stack: Stack, pin: Pin, says_why: bool) -> str:
    """Why a wheel is there: the stack says it, or the lock does, which names what requires it."""
    for package in stack.packages:
        if any(pin.name == canonicalize_name(name) for name in stack.distributions(package)):
            return stack.source(package)
    if pin.asked_by:
        return f"required by {', '.join(pin.asked_by)}"
    return (
        "imported by vimectl or its runtime"
        if says_why
        else "required by what the stack names, or by vimectl"
    )
