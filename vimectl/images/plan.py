"""Plan an image: every source with its pin and the reason for it. Nothing is downloaded or built."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.regular_files import read_regular

from vimectl import __version__
from vimectl.env import vimectl_wheel
from vimectl.images.project_sources import pack_series, stack_text
from vimectl.patches import series
from vimectl.releases.locked_files import WheelTarget
from vimectl.stacks.catalog import is_series_directory, is_stack_path, load_stack, lock_path, stack_names
from vimectl.stacks.choices import CHIPS
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import ImageTable, PinnedCommit, Stack
from vimectl.util.secrets import URL_CREDENTIALS, redact

SourceKind = Literal["stack", "lock", "wheel", "git", "patches", "own-wheel"]
# Files in the folder of sources; an image has the first one too.
STACK_FILE = "stack.toml"
LOCK_FILE = "wheels.txt"

_LOCKS = Path(__file__).parent / "locks"


@dataclass(frozen=True)
class ImageSource:
    """One source of an image.

    ``version`` is that of a wheel or a patch series. ``url`` and ``commit`` are those of a git source; the
    wheel of vimectl has the commit that it is built from, or "". ``sha256`` are the accepted digests of the
    file of a stack, lock or wheel, or the digest of a series. The archive of a repository has
    no submodules; ``left_out`` are the paths of those that the commit has. ``pin`` is the entry of a wheel in
    the lock, ``content`` that of the stack file, the lock, and an archive of the project's patches.
    """

    name: str
    kind: SourceKind
    reason: str
    version: str = ""
    url: str = ""
    commit: str = ""
    sha256: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    pin: Pin | None = field(default=None, compare=False)
    content: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> str:
        """The path in the source folder; for a wheel the directory, as its file name is not known yet."""
        match self.kind:
            case "stack":
                return STACK_FILE
            case "lock":
                return LOCK_FILE
            case "git":
                return f"sources/{self.name}-{self.commit}.tar.gz"
            case "wheel":
                return "wheels"
            case "patches" if self.content is not None:
                return f"patches/{self.name}.tar"
            case _:  # the wheel of vimectl contains its patches
                return "vimectl"


@dataclass(frozen=True)
class ImagePlan:
    """A planned image: its stack, base image, chip, machine and sources.

    ``chip`` is the NPU generation, None on other devices.
    """

    stack: Stack
    chip: str | None
    machine: str
    image: ImageTable
    base: str
    base_reason: str
    sources: tuple[ImageSource, ...]

    @cached_property
    def wheel_target(self) -> WheelTarget:
        """The interpreter of the image, which the wheels are for."""
        return WheelTarget(self.image.python, self.machine, self.image.glibc)

    @property
    def default_tag(self) -> str:
        """The tag of the image when the user gives none."""
        return f"vimectl:{'-'.join(filter(None, (self.stack.name, self.chip)))}"

    @property
    def arguments(self) -> dict[str, str]:
        """The build arguments that depend on the plan only."""
        given = {"STACK": self.stack.name, "BASE_NAME": self.base}
        return given | ({"CHIP": self.chip} if self.chip else {})


def make_plan(
    stack: str, chip: str | None = None, base: str | None = None, machine: str | None = None
) -> ImagePlan:
    """Plan the image of a stack, given by its name or its file.

    Args:
        chip: the NPU generation, by default a2; None for a stack on another device.
        base: the base image, by default the stack's.
        machine: ``aarch64`` or ``x86_64``; by default this machine's when the stack supports it.

    Raises:
        UsageError: the stack is unknown or lacks what an image needs, or the chip or machine is unknown.
    """
    loaded = load_stack(stack)
    image, lock = _image_table(loaded), _lock(stack)
    chip, machine = _chip(loaded, chip), _machine(loaded, machine)
    base, base_reason = _base(loaded, image, chip, base)
    for name, text in (
        (f"the stack {loaded.name}", stack_text(loaded).decode()),
        (str(lock), read_regular(lock).decode(errors="replace")),
        ("the base image", base),
    ):
        _refuse_passwords(name, text)
    return ImagePlan(
        stack=loaded,
        chip=chip,
        machine=machine,
        image=image,
        base=base,
        base_reason=base_reason,
        sources=tuple(_sources(loaded, lock, machine)),
    )


def _refuse_passwords(name: str, text: str) -> None:
    """Refuse a URL with a password: it would be in the image, its documents and command lines."""
    for match in URL_CREDENTIALS.finditer(text):
        # A user alone is no secret, as in ssh://git@HOST; over HTTP it is a token.
        if ":" in match[0] or text[: match.start()].lower().endswith(("http://", "https://")):
            line = text[: match.start()].rpartition("\n")[2] + text[match.start() :].partition("\n")[0]
            raise UsageError(
                f"{name} has a URL with a password, which would be in the image: {redact(line.strip())}",
                "remove it there: git asks a credential helper, pip reads ~/.netrc or its own configuration",
            )


def stacks_with_images() -> list[str]:
    """Return the names of the stacks that have what an image needs."""
    return [name for name in stack_names() if load_stack(name).image and _lock_path(name)]


def _image_table(stack: Stack) -> ImageTable:
    hint = f"stacks with images: {', '.join(stacks_with_images())}"
    if stack.image is None:
        raise UsageError(f"the stack {stack.name} has no [image] table, which an image needs", hint)
    if stack.stack.device == "npu" and stack.memory_saver is None:
        raise UsageError(
            f"the stack {stack.name} has no memory saver: {stack.unrecorded['memory_saver']}", hint
        )
    return stack.image


def _lock(name: str) -> Path:
    found = _lock_path(name)
    if found is None:
        raise UsageError(
            f"{name}: no lock of the wheels for its image",
            f"put one next to the file: {Path(name).with_suffix('.txt')}"
            if is_stack_path(name)
            else f"stacks with images: {', '.join(stacks_with_images())}",
        )
    return found


def _lock_path(name: str) -> Path | None:
    """Return the lock of an image: of the whole stack, or of the packages that the base image lacks."""
    return lock_path(name, _LOCKS) or lock_path(name)


def _chip(stack: Stack, chip: str | None) -> str | None:
    if stack.stack.device != "npu":
        if chip:
            raise UsageError(
                f"the stack {stack.name} is for the {stack.stack.device}, not for chips ({chip})",
                "leave --chip out",
            )
        return None
    chip = chip or "a2"
    if chip not in CHIPS:
        raise unknown("chip", chip, CHIPS)
    return chip


def _base(stack: Stack, image: ImageTable, chip: str | None, base: str | None) -> tuple[str, str]:
    if base:
        return base, "given with --base"
    found = image.base or (stack.images and chip and getattr(stack.images, chip))
    if not found:
        raise UsageError(f"the stack {stack.name} names no base image", "name one with --base IMAGE")
    why = stack.source("image" if image.base else "images")
    return found, f"{why}; tags can move, so the provenance records the digest"


def _machine(stack: Stack, machine: str | None) -> str:
    known: list[str] = list(stack.stack.machines)
    machine = machine or (platform.machine() if platform.machine() in known else known[0])
    if machine not in known:
        raise unknown("machine", machine, known)
    return machine


def _sources(stack: Stack, lock: Path, machine: str) -> Iterator[ImageSource]:
    why = "has the versions that belong together"
    yield _made_source(stack.name, "stack", why, stack_text(stack))
    why = "has the wheels to install, each with its digests"
    yield _made_source("wheels", "lock", why, lock.read_bytes())
    why = "applies the patches, verifies the result, launches the runtime"
    yield ImageSource("vimectl", "own-wheel", why, __version__, commit=vimectl_wheel.revision())
    for package, entry in stack.series:
        if is_series_directory(entry):
            name, content = pack_series(stack, package, entry)
            yield _made_source(name, "patches", f"the series {entry} of {stack.name}", content)
        else:
            digest = series.load(package, entry).digest
            yield ImageSource(package, "patches", stack.source("patches"), entry, sha256=(digest,))
    yield from git_sources(stack)
    for pin in read_lock(lock, machine).values():
        why = _wheel_reason(stack, pin)
        yield ImageSource(pin.name, "wheel", why, pin.version, sha256=tuple(sorted(pin.hashes)), pin=pin)


def git_sources(stack: Stack) -> Iterator[ImageSource]:
    """Yield the repositories whose packages are built from source, the memory saver last."""
    for name, commit in stack.commits.items():
        yield _git_source(name, stack.source(name), commit)
    if saver := stack.memory_saver:
        why = f"source of torch_memory_saver, tag {saver.tag}; {stack.source('memory_saver')}"
        yield _git_source(saver.url.rstrip("/").rpartition("/")[2], why, saver)


def _git_source(name: str, reason: str, pin: PinnedCommit) -> ImageSource:
    why = "; ".join([reason, *(f"without {path}: {text}" for path, text in pin.left_out.items())])
    return ImageSource(name, "git", why, url=pin.url, commit=pin.commit, left_out=tuple(pin.left_out))


def _made_source(name: str, kind: SourceKind, reason: str, content: bytes) -> ImageSource:
    digest = hashlib.sha256(content).hexdigest()
    return ImageSource(name, kind, reason, sha256=(digest,), content=content)


def _wheel_reason(stack: Stack, pin: Pin) -> str:
    """Return why a wheel is needed, from the stack or from the lock's comments."""
    for package in stack.packages:
        if any(pin.name == canonicalize_name(name) for name in stack.distributions(package)):
            return stack.source(package)
    return f"required by {', '.join(pin.required_by) or 'the stack, vimectl or its runtime'}"
