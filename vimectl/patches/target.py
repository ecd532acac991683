"""Locate a package in this interpreter, a directory or a wheel, and read its files."""

from __future__ import annotations

import importlib.util
import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vime_runtime.spec.errors import UsageError

from vimectl.patches import distribution
from vimectl.patches.blobs import NO_FILE, FileId, blob_id, content_at, file_id_at

if TYPE_CHECKING:
    from vimectl.patches.release_files import Wheel

TargetKind = Literal["site-packages", "git", "editable", "tree", "wheel"]


@dataclass(frozen=True)
class PatchTarget:
    """A package in a directory, or in a wheel, which is read-only.

    ``location`` holds the package (``location/vllm/__init__.py`` exists) or is the wheel. ``record`` is the
    RECORD that lists its files, if it was unpacked from a wheel.
    """

    package: str
    version: str
    location: Path
    kind: TargetKind
    record: Path | None = None


def find_installed(package: str, module: str, version: str | None = None) -> PatchTarget | None:
    """Find ``package`` as this interpreter would import it, without importing it; None when it is absent.

    Raises UsageError when its version is unknown and none is given.
    """
    top, *rest = module.split("/")
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if Path(folder, *rest, "__init__.py").is_file():
            return _in_directory(Path(folder).resolve().parent, package, module, version, editable=True)
    return None


def find_at(location: Path, package: str, module: str, version: str | None = None) -> PatchTarget | None:
    """Find ``package`` in a wheel, a directory, or its ``src`` (as in some source archives), or return None.

    Raises UsageError when its version is unknown and none is given, or when a wheel is damaged.
    """
    location = location.resolve()
    if is_wheel(location):
        return _in_wheel(location, package, module, version)
    for holder in (location, location / "src"):
        if (holder / module / "__init__.py").is_file():
            return _in_directory(holder.resolve(), package, module, version, editable=False)
    return None


def _in_directory(
    location: Path, package: str, module: str, version: str | None, editable: bool
) -> PatchTarget:
    """``editable``: it may be an editable install of this interpreter."""
    if dist_info := distribution.dist_info_of(location, package, module):
        version = version or distribution.version_at(dist_info / "METADATA")
        # Installers write this file; a wheel that was only unpacked does not have it.
        kind: TargetKind = "site-packages" if (dist_info / "INSTALLER").is_file() else "tree"
        version = _required(version, package, location)
        return PatchTarget(package, version, location, kind, dist_info / "RECORD")
    installed = distribution.editable_metadata(location) if editable else None
    metadata = installed or distribution.source_metadata(location)
    version = version or (distribution.version_at(metadata) if metadata else None)
    tracked = not installed and distribution.is_tracked(location, f"{module}/__init__.py")
    kind = "editable" if installed else "git" if tracked else "tree"
    return PatchTarget(package, _required(version, package, location), location, kind)


def _in_wheel(location: Path, package: str, module: str, version: str | None) -> PatchTarget | None:
    wheel = open_wheel(location)
    names = wheel.paths()
    if f"{module}/__init__.py" not in names:
        return None
    name = next((name for name in names if name.endswith(".dist-info/METADATA")), None)
    if version is None and name:
        version = distribution.parse_version(wheel.read(name) or b"")
    return PatchTarget(package, _required(version, package, location), location, "wheel")


def _required(version: str | None, package: str, location: Path) -> str:
    if not version:
        raise UsageError(f"{location}: the version of {package} is not stated", "state it with --version V")
    return version


def is_wheel(location: Path) -> bool:
    return location.suffix == ".whl" and location.is_file()


@lru_cache(maxsize=8)
def open_wheel(location: Path) -> Wheel:
    """Open a wheel, once per process. Reading from a damaged one raises UsageError."""
    from vimectl.patches.release_files import Wheel

    return Wheel(location)


def read_file(location: Path, path: str) -> bytes | None:
    """Return what git stores for a file of a target: its bytes, a link's target, None for no file."""
    return open_wheel(location).read(path) if is_wheel(location) else content_at(location / path)


def file_id(location: Path, path: str) -> FileId:
    """Return the id of a file of a target."""
    if not is_wheel(location):
        return file_id_at(location / path)
    data = open_wheel(location).read(path)
    return NO_FILE if data is None else FileId(blob_id(data), open_wheel(location).mode(path))


def write_blocker(location: Path, path: str) -> str | None:
    """Return why nothing may be written to ``path``, or None.

    A symbolic link in the place of the file itself is allowed: a series may patch one.
    """
    if is_wheel(location):
        return None
    full_path = os.path.join(location, path)
    folder = os.path.dirname(full_path)
    real = os.path.realpath(folder)
    if real != str(location) and not real.startswith(f"{str(location).rstrip('/')}/"):
        return f"its folder is a symbolic link out of the target, to {real}"
    try:
        mode = os.lstat(full_path).st_mode
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return "a file is in the place of one of its folders"
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return None
    return "a folder is in its place" if stat.S_ISDIR(mode) else "something that is no file is in its place"
