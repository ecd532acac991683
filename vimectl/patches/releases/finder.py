"""Find PACKAGE==VERSION: on this machine first, then in parts of a wheel, then whole."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from vime_runtime.spec.errors import UsageError, VimeError
from vime_runtime.spec.strict import Strict

from vimectl.patches.releases import download, index, index_cache, pip_config
from vimectl.patches.releases.download import Report
from vimectl.patches.releases.http_range import NoRanges, RangedFile
from vimectl.patches.releases.index import File
from vimectl.patches.releases.pip_config import Settings
from vimectl.patches.releases.web import Web
from vimectl.patches.sources import Sources, Wheel, open_path
from vimectl.util import toml

_LOOK = "see pip's configuration (pip config list), or name a folder, wheel or source archive instead"


class AlsoTable(Strict):
    """The schema of ``sources.toml``."""

    also: dict[str, list[str]]


def parse(text: str) -> tuple[str, str] | None:
    """Return package and version of ``PACKAGE==VERSION``; None when the text is not of this form."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None
    exact = [s.version for s in requirement.specifier if s.operator == "=="]
    return (requirement.name, exact[0]) if len(exact) == len(requirement.specifier) == 1 else None


def versions(package: str) -> list[str]:
    """Return the versions of a package that pip's sources have, oldest first, pre-releases too.

    Raises UsageError when no source has the package, and what went wrong when one could not be asked.
    """
    files, problems = _Sources().listed(package)
    found = index.by_version(file for file in files if not file.yanked)
    if not found:
        raise problems[0] if problems else UsageError(f"pip's sources have no release of {package}", _LOOK)
    return [str(version) for version in found]


def find(package: str, version: str, report: Report = lambda name, done, total: None) -> Sources:
    """Open a release from pip's sources, fetching as little of it as they allow.

    Only the files that are read come over the network where a server gives parts of a wheel. ``report``
    is told how far the fetching of a whole file is. What has come is kept in the user's cache.

    Raises:
        UsageError: no source has this version; the nearest ones are named.
        CheckFailed: a file has another digest than its index states.
        MissingRequirement: no source can be reached, or the disk is full.
    """
    sources = _Sources()
    files: list[File] = []
    every: list[File] = []
    problems: list[VimeError] = []
    also = toml.load(AlsoTable, Path(__file__).parent / "sources.toml").also
    for name in (package, *also.get(canonicalize_name(package), [])):
        found, trouble = sources.listed(name)
        every += found
        problems += trouble
        its = [file for file in found if _same(file.version, version)]
        # A later build of a wheel takes the place of an earlier one, also of one that is at hand.
        build = max((file.build for file in its), default=(0, ""))
        its = [file for file in its if file.kind == "sdist" or file.build == build]
        files += sorted(its, key=_preference)
    if not files:
        raise problems[0] if problems else _no_such(package, version, every)
    return sources.open(files, report)


class _Sources:
    """pip's sources, as configured at this moment."""

    def __init__(self) -> None:
        self._settings: Settings = pip_config.read()
        self._web = Web(self._settings)

    def listed(self, package: str) -> tuple[list[File], list[VimeError]]:
        """The files there are of a package; from the last listing too where a source cannot be asked."""
        name = canonicalize_name(package)
        listing = index.files(name, self._settings, self._web)
        if not listing.problems:
            index_cache.remember(name, listing.files)
            return listing.files, []
        known = {file.name for file in listing.files}
        old = [file for file in index_cache.remembered(name) if file.name not in known]
        return [*listing.files, *old], listing.problems

    def open(self, files: Sequence[File], report: Report) -> Sources:
        """Open one of several files of a release, the preferred first."""
        for file in files:
            if path := self._at_hand(file):
                return open_path(path, file.name)
        remote = [file for file in files if file.local is None]
        refusing: set[str] = set()
        for file in remote:
            host = urlsplit(file.url).netloc
            if file.kind == "wheel" and host not in refusing:
                try:
                    return self._in_parts(file)
                except NoRanges:
                    refusing.add(host)
        smallest = min(remote, key=lambda file: file.size if file.size is not None else float("inf"))
        return open_path(download.whole(smallest, _folder(smallest), self._web, report))

    def _at_hand(self, file: File) -> Path | None:
        """Where the file is on this machine, whole and with its digest: a local source, our cache, pip's."""
        if file.local:
            return download.verified(file.local, file)
        places = [_folder(file) / file.name]
        if self._settings.cache:
            places.append(_in_pip_cache(self._settings.cache, file.url))
        return next((path for path in places if download.intact(path, file.hashes)), None)

    def _in_parts(self, file: File) -> Sources:
        ranged = RangedFile(self._web, file.url, file.size, _folder(file) / "blocks")
        wheel = Wheel(cast("IO[bytes]", ranged), file.name, ranged.prefetch)
        wheel.paths()  # reads the directory: now it shows whether the server gives parts
        return wheel


def _folder(file: File) -> Path:
    """Where in the cache a file is kept: by its digest, or by its address when its source states none."""
    identity = next(iter(sorted(file.hashes.values(), key=len, reverse=True)), file.url)
    return index_cache.cache() / "files" / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _in_pip_cache(cache: Path, url: str) -> Path:
    """Where pip keeps the body of an answer. Its layout is pip's own affair: what is there counts only when
    it has the digest that the index states, and when nothing is there it is fetched."""
    parts = urlsplit(url)
    key = f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path or '/'}"
    name = hashlib.sha224((f"{key}?{parts.query}" if parts.query else key).encode()).hexdigest()
    return cache.joinpath("http-v2", *name[:5], f"{name}.body")


def _preference(file: File) -> tuple[bool, str]:
    """Local files first; else by name, so that everybody reads the same one."""
    return file.local is None, file.name


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _no_such(package: str, version: str, files: Sequence[File]) -> UsageError:
    known = list(index.by_version(files))
    if not known:
        return UsageError(f"pip's sources have no release of {package}", _LOOK)
    near = known[-3:]
    try:
        place = bisect_left(known, Version(version))
        near = known[max(0, place - 2) : place + 2]
    except InvalidVersion:
        pass
    names = ", ".join(map(str, near))
    return UsageError(
        f"{package} {version}: no such release; the nearest are {names}, the newest is {known[-1]}", _LOOK
    )
