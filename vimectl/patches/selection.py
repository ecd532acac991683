"""Find the targets that a command is about, and the series that fits each.

A series fits a target of the version or commit that it is for. It also fits another version (``.post1``, a
local build, a commit) whose touched files have the same content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vime_runtime.spec.errors import MissingRequirement, UsageError, VimeError, unknown

from vimectl.patches import applied_state, series, target
from vimectl.patches.distribution import importing_archive
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus, classify
from vimectl.patches.target import PatchTarget, TargetFiles
from vimectl.stacks.catalog import default_stack, is_series_directory, load_summary, stack_names
from vimectl.stacks.versions import distance, matches
from vimectl.util.dist_info import canonical_name


class Selection(NamedTuple):
    """The options of the patch commands.

    ``stack`` is a stack's name or a file; ``series`` a directory to use instead of the stack's series;
    ``directory`` holds the packages (or is a wheel); ``packages`` selects some of them; ``version`` is that
    of the single package selected, if the package does not state it.
    """

    packages: tuple[str, ...] = ()
    stack: str | None = None
    series: Path | None = None
    directory: Path | None = None
    version: str | None = None

    def statuses(self) -> list[TargetStatus]:
        """Find the targets and classify them, without changing anything.

        Without a stack or series they are those of VIMECTL_STACK or of the project file; without these those
        in ``directory`` that have a series for any version, or those of the stack that is installed.

        Raises:
            UsageError: an unknown stack or package, no such directory, a selected package is not in it, no
                stack; or a series or the bookkeeping of a package is damaged.
            MissingRequirement: a package is not installed for this interpreter.
        """
        entries, targets = self._entries()
        self._check(entries)
        found: dict[str, PatchTarget] = {}
        candidates: dict[str, list[Series]] = {}
        for package in self.packages or tuple(entries):
            directory = self.directory or targets.get(package)
            if directory is not None and self.directory is None and not directory.is_dir():
                raise MissingRequirement(
                    f"{directory}: no such directory, and {package} should be there",
                    "correct [targets] in the project file, or make the directory available",
                )
            candidates[package] = _candidates(package, entries[package])
            one = find_target(package, candidates[package][-1], directory, self.version)
            if entries[package] == () and not (one and package in applied_state.read(one.location)):
                del entries[package]  # the project has no patches on it, and it has none
            elif one:
                found[package] = one
            elif self.directory is None:
                where = f"not in {directory}" if directory else "not installed here"
                module = candidates[package][-1].module
                if not directory and (archive := importing_archive(package, module)):
                    where = f"imported from the archive {archive}, in which no file can be patched"
                raise MissingRequirement(
                    f"{package} is {where}",
                    "install it (vimectl env create DIR --stack NAME installs a stack), or say where it is:"
                    " --target DIR, or [targets] in the project file",
                )
        self._check_absent(entries, found)
        return [_fit(one, candidates[package]) for package, one in found.items()]

    def locations(self) -> list[Path]:
        """Return the directories of those packages that are found; none of them need be there or intact."""
        try:
            entries, targets = self._entries()
        except UsageError:  # no stack is installed
            return []
        found = []
        for package in self.packages or tuple(entries):
            with suppress(VimeError, OSError, KeyError):
                one = _candidates(package, entries[package])[-1]
                if place := find_target(package, one, self.directory or targets.get(package)):
                    found.append(place.location)
        return found

    def _entries(self) -> tuple[dict[str, tuple[str, ...] | None], dict[str, Path]]:
        """Return by package the series on it (None: those for any version), and the directories of
        targets."""
        if self.series is not None:
            package = series.read(self.series).package or "".join(self.packages[:1])
            if not package:
                raise UsageError(f"{self.series} does not say for which package it is", "name the package")
            return {package: (str(self.series),)}, {}
        name = self.stack or default_stack()
        if name is None and self.directory is not None:
            return dict.fromkeys(series.known()), {}
        if name is None:
            from vimectl.stacks.detection import detect_stack  # lists every distribution: only when needed
            from vimectl.util.host import Host

            name = detect_stack(Host()).stack
        if name is None:
            raise UsageError(
                "no known stack is installed here, and there is no vimectl.toml",
                "write one with: vimectl init; or name a stack with --stack, or give --target DIR",
            )
        summary = load_summary(name)
        return dict(summary.patches), summary.targets

    def _check(self, entries: dict[str, tuple[str, ...] | None]) -> None:
        for package in self.packages:
            if package not in entries:
                raise unknown("package", package, entries)
        directory = self.directory
        if directory and not directory.is_dir() and not target.is_wheel(directory):
            what = "neither a directory nor a wheel" if directory.exists() else "no such directory"
            raise UsageError(f"{directory}: {what}", "give the directory that holds the package's folder")
        if self.version and len(self.packages or entries) != 1:
            raise UsageError("--version states the version of one package", "name the package")

    def _check_absent(
        self, entries: dict[str, tuple[str, ...] | None], found: dict[str, PatchTarget]
    ) -> None:
        """Raise UsageError if a package is absent, so that no command reports on fewer than were selected."""
        absent = [package for package in self.packages or entries if package not in found]
        if not absent or not self.directory:
            return
        names = ", ".join(absent)
        if not found:
            hint = "give the directory that holds the package's folder"
            raise UsageError(f"{self.directory}: no {names} here", hint)
        if self.packages or self.stack:
            here = " ".join(found)
            message = f"{self.directory}: no {names} here, only {here}"
            raise UsageError(message, f"name what is meant: {here}")


def entry_series(package: str, entry: str) -> Series:
    """Return the series that an entry of ``[patches]`` names. Raises UsageError when there is none."""
    if not is_series_directory(entry):
        return series.load(package, entry)
    one = series.read(Path(entry))
    if one.package and canonical_name(one.package) != canonical_name(package):
        message = f"{entry}: these patches are for {one.package}, not for {package}"
        raise UsageError(message, "correct [patches] in the project file, or the series.toml")
    return one._replace(package=package)


def stacked(package: str, entries: Sequence[str]) -> Series:
    """Return the series of a package as one. Raises UsageError when they do not fit on each other."""
    return series.stack_up([entry_series(package, entry) for entry in entries])


def _candidates(package: str, entries: tuple[str, ...] | None) -> list[Series]:
    """Return the series on a package as one, or (None) every one that vimectl has."""
    if entries is None:
        return [series.load(package, version) for version in series.known()[package]]
    if not entries:
        shipped = series.known().get(package, ())
        module = series.load(package, shipped[-1]).module if shipped else ""
        return [Series("no patches", package, (), module=module)]
    return [stacked(package, entries)]


def find_target(
    package: str, one: Series, directory: Path | None = None, version: str | None = None
) -> PatchTarget | None:
    """Return the package that a series is for, in a directory or installed; None when it is not there."""
    if directory is None:
        return target.find_installed(package, one.module, version)
    return target.find_at(directory, package, one.module, version, one.chains)


def fit(one: PatchTarget, found: Series) -> TargetStatus:
    """Classify a target with a series, if the series is for it or has the content of its files."""
    return _fit(one, [found])


def _fit(one: PatchTarget, candidates: Sequence[Series]) -> TargetStatus:
    """Classify a target with the series that fits it. Raises UsageError when its version is not stated."""
    for found in candidates:
        if _is_for(found, one):
            return classify(one, found)
    found, share = _nearest(one, candidates)
    if share == 1 or (share >= 0.5 and _same_release(one.version, found.version)):
        how = "the patched files are" if share == 1 else "most of the patched files are"
        return classify(one, found, f"{how} those of {found.version or found.commit}")
    if not one.version:
        message = f"{one.location}: the version of {one.package} is not stated"
        raise UsageError(message, "state it with --version V")
    if versions := series.known().get(one.package):
        found, share = _nearest(one, [series.load(one.package, version) for version in versions])
    if share == 1:
        note = f"the patches of the stack do not fit, those for {found.version} do"
        stack = next(name for name in stack_names() if found.version in _entries_of(name, one.package))
        return classify(one, None, note, f"vimectl patch apply {one.package} --stack {stack}")
    files = len(found.chains)
    note = f"no series fits; the nearest is for {found.version or found.commit}"
    note += f" ({round(share * files)} of its {files} files are the same)"
    hint = f"vimectl patch port {one.package} --from {found.version} --to {one.version}"
    return classify(one, None, note, hint if found.version else f"check out {found.commit}")


def _entries_of(stack: str, package: str) -> tuple[str, ...]:
    return load_summary(stack).patches.get(package, ())


def _is_for(found: Series, one: PatchTarget) -> bool:
    """Return True if a series names the version or commit of a target, or none."""
    if found.commit:
        return bool(one.version) and found.commit.startswith(one.version)
    return not found.version or matches(one.version, found.version)


def _nearest(one: PatchTarget, candidates: Sequence[Series]) -> tuple[Series, float]:
    """Return the series of which most files have a known content, then that of the nearest version."""
    shares = {index: _share_of_known_files(one, each) for index, each in enumerate(candidates)}
    best = min(shares, key=lambda n: (-shares[n], distance(one.version, candidates[n].version)))
    return candidates[best], shares[best]


def _share_of_known_files(one: PatchTarget, candidate: Series) -> float:
    """Return the share of a series's files that have a content of the series, from 0 to 1."""
    with TargetFiles(one.location) as files:
        known = [candidate.position(path, files.id(path)) is not None for path in candidate.chains]
    return sum(known) / len(known) if known else 0.0


def _same_release(one: str, other: str) -> bool:
    """Return True if two versions are builds, candidates or post-releases of one release."""
    from packaging.version import InvalidVersion, Version  # slow to import, and rarely needed

    try:
        return Version(one).release == Version(other).release
    except InvalidVersion:
        return False


def describe(packages: Sequence[str] = (), stack: str | None = None) -> Iterator[Series]:
    """Yield every series that vimectl has, or those of a stack or project; only those of some packages.

    Raises UsageError for an unknown stack or package.
    """
    name = stack or default_stack()
    if name is None:
        entries = {package: tuple(versions) for package, versions in series.known().items()}
    else:
        entries = load_summary(name).patches
    for package in packages:
        if package not in entries:
            raise unknown("package", package, entries)
    for package in packages or entries:
        for entry in entries[package]:
            yield entry_series(package, entry)
