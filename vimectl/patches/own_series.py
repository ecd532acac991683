"""Find and write the user's own series of a package: the topmost directory that the project has for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError, unknown

from vimectl.patches import series, series_writer
from vimectl.patches.command import recover
from vimectl.patches.patchfile.reader import load
from vimectl.patches.selection import entry_series, find_target, fit
from vimectl.patches.series import ABOUT, ORDER, Patch, Series, file_name, stack_up
from vimectl.patches.state import TargetStatus
from vimectl.patches.target import read_file
from vimectl.patches.target_lock import locked
from vimectl.patches.transaction import FileStep
from vimectl.stacks.catalog import (
    PROJECT_FILE,
    default_stack,
    is_series_directory,
    is_stack_path,
    load_summary,
)
from vimectl.stacks.detection import detect_stack
from vimectl.stacks.project import add_series
from vimectl.util.dist_info import canonical_name
from vimectl.util.host import Host

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class OwnSeries:
    """The user's own series of a package, and the target with all series of the project.

    ``stack`` is what the project file is or is going to extend, ``directory`` that of the series, which need
    not exist, and ``ids`` has its patches. They are the topmost of ``series``, where their ids may have a
    suffix.
    """

    stack: str | None
    project: Path
    directory: Path
    ids: tuple[str, ...]
    series: Series
    status: TargetStatus

    @property
    def package(self) -> str:
        return self.status.target.package

    @property
    def below(self) -> int:
        """Return the number of patches that other series have below."""
        return len(self.series.patches) - len(self.ids)

    def id_in_stack(self, name: str) -> str:
        """Return the id of a patch among those of all series. Raises UsageError when there is none."""
        if name not in self.ids:
            raise unknown(f"patch in {self.directory}", name, self.ids)
        return self.series.patches[self.below + self.ids.index(name)].id


def choose_package(name: str, package: str | None = None, stack: str | None = None) -> str:
    """Return the package whose patch ``name`` is, or is going to be: the only one that is possible.

    Raises UsageError when there are several.
    """
    if package:
        return canonical_name(package)
    selected = stack or default_stack()
    packages = list(load_summary(selected).patches) if selected else []
    if len(packages) > 1:
        packages = [one for one in packages if name in find_own(one, selected).ids]
    if len(packages) == 1:
        return packages[0]
    raise UsageError(
        f"which package the patch {name} is for is not clear", f"vimectl patch save {name} PACKAGE"
    )


def find_own(
    package: str, stack: str | None = None, directory: Path | None = None, version: str | None = None
) -> OwnSeries:
    """Return the user's own series of a package.

    It is the topmost directory that the project has for the package, otherwise ``patches/PACKAGE`` next to
    the project file. ``directory`` holds the package, ``version`` is its version where the package states
    none.

    Raises:
        UsageError: a series is malformed.
        CheckFailed: no series fits the package's version.
        MissingRequirement: the package is not there.
    """
    name = stack or default_stack() or _installed_stack(package)
    project = (Path(name) if name and is_stack_path(name) else Path(PROJECT_FILE)).absolute()
    # Changes refuse links on the way to a file: another user may have put one there.
    project = project.parent.resolve() / project.name
    summary = load_summary(name) if name else None
    entries = summary.patches.get(package, ()) if summary else ()
    below, own = entries, project.parent / "patches" / package
    if entries and is_series_directory(entries[-1]):
        below, own = entries[:-1], Path(entries[-1]).resolve()
    ids: tuple[str, ...] = ()
    parts = [entry_series(package, entry) for entry in below]
    if (own / ORDER).is_file():
        parts.append(series.read(own))
        ids = tuple(patch.id for patch in parts[-1].patches)
    directory = directory or (summary.targets.get(package) if summary else None)
    whole = stack_up(parts) if parts else Series("no patches", package, ())
    found = find_target(package, whole, directory, version)
    if found is None:
        where = f"in {directory}" if directory else "installed here"
        hint = "give the directory that holds it with --target DIR"
        raise MissingRequirement(f"{package} is not {where}", hint)
    status = fit(found, whole)
    if status.series is None:
        raise CheckFailed(f"{package} {found.version} in {found.location}: {status.note}", status.hint)
    return OwnSeries(name, project, own, ids, whole, status)


def _installed_stack(package: str) -> str | None:
    """Return the stack that is installed, exactly, if it has patches on a package."""
    found = detect_stack(Host())
    if not found.exact or not found.stack:
        return None
    return found.stack if package in load_summary(found.stack).patches else None


@contextmanager
def changing(own: OwnSeries, dry_run: bool) -> Iterator[None]:
    """Hold the locks of the target and the project; a dry run needs none."""
    if dry_run:
        yield
        return
    roots = sorted({own.status.target.location, own.project.parent, _root(own)})
    recover(roots)
    with locked(roots):
        yield


def _root(own: OwnSeries) -> Path:
    """Return the directory whose bookkeeping covers a change of the series; commands recover it first."""
    if own.directory.is_relative_to(own.project.parent):
        return own.project.parent
    return next(path for path in (own.directory, *own.directory.parents) if path.is_dir())


def written(own: OwnSeries, patches: Mapping[str, Patch]) -> list[FileStep]:
    """Return the steps that make ``patches``, by id and bottom first, the patches of the series."""
    target, root = own.status.target, _root(own)
    removed = [file_name(patch_id) for patch_id in own.ids if patch_id not in patches]
    steps = [_step(root, own.directory / file, None) for file in removed]
    steps += [_step(root, own.directory / file_name(name), one.text) for name, one in patches.items()]
    # The texts that were read: the transaction refuses a patch that has changed since.
    old = own.series.patches[own.below :]
    read = {own.directory / file_name(name): one.text for name, one in zip(own.ids, old, strict=True)}
    steps = [step._replace(before=read.get(step.location / step.path, step.before)) for step in steps]
    steps.append(_step(root, own.directory / ORDER, _order(own, list(patches))))
    if not (own.directory / ORDER).exists():
        commit = target.version if _COMMIT.fullmatch(target.version) else ""
        version = "" if commit else own.series.version or target.version
        about = series_writer.about(own.package, version, commit, own.series.module)
        steps.append(_step(root, own.directory / ABOUT, about))
        steps.append(_step(own.project.parent, own.project, _project(own)))
    return [step for step in steps if step.changes]


def _step(root: Path, path: Path, after: bytes | None) -> FileStep:
    relative = str(path.relative_to(root))
    try:
        return FileStep(root, relative, read_file(root, relative), after)
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}", "put a file in its place, or remove it") from e


def _order(own: OwnSeries, ids: Sequence[str]) -> bytes:
    """Return the text of the series file with these patches; its comments and options stay."""
    path = own.directory / ORDER
    if not path.exists():
        return series_writer.order(ids, f"Patches on {own.package}, in the order in which they apply.")
    names = [file_name(patch_id) for patch_id in ids]
    old = [file_name(patch_id) for patch_id in own.ids]
    lines = load(path).splitlines(keepends=True)
    kept = [line for line in lines if _first_word(line) not in old or _first_word(line) in names]
    text = b"".join(kept)
    if text and not text.endswith(b"\n"):
        text += b"\n"
    return text + b"".join(f"{name}\n".encode() for name in names if name not in old)


def _first_word(line: bytes) -> str:
    return next(iter(line.decode("utf-8", "replace").partition("#")[0].split()), "")


def _project(own: OwnSeries) -> bytes:
    """Return the text of the project file with the series."""
    extends = own.stack if own.stack and not is_stack_path(own.stack) else None
    version = own.status.target.version
    released = None if _COMMIT.fullmatch(version) else version
    # Only the project file says where a work tree is.
    place = own.status.target.location if own.status.target.kind == "git" else None
    return add_series(own.project, own.package, released, own.directory, extends, place)
