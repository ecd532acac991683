"""Locate a package in this interpreter, a directory or a wheel, and read its files."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vimectl.patches import distribution
from vimectl.patches.blobs import NO_FILE, FileId, blob_id
from vimectl.patches.target_tree import blocker_in, content_in, file_id_in, open_tree
from vimectl.util.dist_info import canonical_name, editable_source

if TYPE_CHECKING:
    from vimectl.patches.release_files import Wheel
    from vimectl.util.directory_tree import DirectoryTree

TargetKind = Literal["site-packages", "git", "editable", "tree", "wheel"]


class PatchTarget(NamedTuple):
    """A package in a directory, or in a wheel, which is read-only.

    ``location`` is what the paths in patches are relative to: it holds the package
    (``location/vllm/__init__.py`` exists), is a work tree, or is the wheel. ``version`` is the commit of a
    work tree without metadata, and empty when nothing states it. ``record`` is the RECORD that lists the
    package's files, if it was unpacked from a wheel.
    """

    package: str
    version: str
    location: Path
    kind: TargetKind
    record: Path | None = None


def find_installed(package: str, module: str = "", version: str | None = None) -> PatchTarget | None:
    """Find ``package`` as this interpreter would import it, without importing it; None when it is absent.

    Without ``module`` it is the distribution of this name.
    """
    if not module:
        return _find_distribution(package, version)
    top, *rest = module.split("/")
    spec = importlib.util.find_spec(top)
    if spec and spec.origin and not spec.submodule_search_locations and not rest:
        return _in_directory(Path(spec.origin).resolve().parent, package, module, version, editable=True)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if _is_module(Path(folder, *rest)):
            return _in_directory(Path(folder).resolve().parent, package, module, version, editable=True)
    return None


def find_at(
    location: Path, package: str, module: str = "", version: str | None = None, paths: Iterable[str] = ()
) -> PatchTarget | None:
    """Find ``package`` in a wheel, a directory, or its ``src`` (as in source archives), or return None.

    Without ``module`` it is where the distribution of this name is, or most of ``paths``, which patches
    touch. Raises UsageError when a wheel is damaged.
    """
    location = location.resolve()
    if is_wheel(location):
        return _in_wheel(location, package, module, version)
    holders = [location]
    if (source := (location / "src").resolve()).is_relative_to(location):  # not a link to another place
        holders.append(source)
    if module:
        found = [holder for holder in holders if _is_module(holder / module)]
    else:
        found = [holder for holder in holders if distribution.dist_info_of(holder, package, "")]
    if not found:
        there = {holder: sum(os.path.lexists(holder / path) for path in paths) for holder in holders}
        found = [max(holders, key=lambda holder: there[holder])] if any(there.values()) else []
    if not found and not module and (location / ".git").exists():
        found = [location]
    return _in_directory(found[0], package, module, version, editable=False) if found else None


def _is_module(path: Path) -> bool:
    """Return True for a single module and the folder of a package, also one without ``__init__.py``."""
    if (path / "__init__.py").is_file() or path.with_suffix(".py").is_file():
        return True
    # A checkout of a package often has the package's name and a setup.py.
    project = any((path / name).exists() for name in ("setup.py", "pyproject.toml", ".git"))
    return not project and any(path.glob("*.py"))


def _find_distribution(package: str, version: str | None) -> PatchTarget | None:
    from vimectl.stacks.installed import site_directories  # with --target nothing else needs it
    from vimectl.util.host import Host

    host = Host()
    for directory in (Path(one).resolve() for one in site_directories(host)):
        folder = distribution.dist_info_of(directory, package, "")
        if folder is None:
            continue
        source = editable_source(host.read(str(folder / "direct_url.json")))
        if source is None:
            return _in_directory(directory, package, "", version, editable=False)
        version = version or distribution.version_at(folder / "METADATA")
        found = find_at(Path(source), package, "", version)
        return found or _in_directory(Path(source).resolve(), package, "", version, editable=True)
    return None


def _in_directory(
    location: Path, package: str, module: str, version: str | None, editable: bool
) -> PatchTarget:
    """``editable``: it may be an editable install of this interpreter."""
    if dist_info := distribution.dist_info_of(location, package, module):
        version = version or distribution.version_at(dist_info / "METADATA")
        # Installers write this file; a wheel that was only unpacked does not have it.
        kind: TargetKind = "site-packages" if (dist_info / "INSTALLER").is_file() else "tree"
        return PatchTarget(package, version or "", location, kind, dist_info / "RECORD")
    installed = distribution.editable_metadata(location) if editable else None
    metadata = installed or distribution.source_metadata(location)
    version = version or (distribution.version_at(metadata) if metadata else None)
    tracked = not installed and distribution.is_tracked(location, module or ".")
    kind = "editable" if installed else "git" if tracked else "tree"
    if not version and tracked:
        version = distribution.commit_of(location)
    return PatchTarget(package, version or "", location, kind)


def _in_wheel(location: Path, package: str, module: str, version: str | None) -> PatchTarget | None:
    wheel = open_wheel(location)
    names = wheel.paths()
    folder = next((name for name in names if name.endswith(".dist-info/METADATA")), "")
    if module and not any(name.startswith((f"{module}/", f"{module}.py")) for name in names):
        return None
    if not module and distribution.package_of(folder.partition("/")[0]) != canonical_name(package):
        return None
    if version is None and folder:
        version = distribution.parse_version(wheel.read(folder) or b"")
    return PatchTarget(package, version or "", location, "wheel")


def is_wheel(location: Path) -> bool:
    return location.suffix == ".whl" and location.is_file()


@lru_cache(maxsize=8)
def open_wheel(location: Path) -> Wheel:
    """Open a wheel, once per process. Reading from a damaged one raises UsageError."""
    from vimectl.patches.release_files import Wheel

    return Wheel(location)


class TargetFiles:
    """The files of a target, which is opened once. Paths are relative to its location."""

    def __init__(self, location: Path) -> None:
        self._wheel = open_wheel(location) if is_wheel(location) else None
        self._tree = None if self._wheel else open_tree(location)

    def __enter__(self) -> TargetFiles:
        return self

    def __exit__(self, *error: object) -> None:
        if self._tree:
            self._tree.close()

    def read(self, path: str) -> bytes | None:
        """Return what git stores for a file: its bytes, a link's target, None for no file."""
        if self._wheel:
            return self._wheel.read(path)
        return content_in(self._opened(), path)

    def id(self, path: str) -> FileId:
        """Return the id of a file."""
        if not self._wheel:
            return file_id_in(self._opened(), path)
        data = self._wheel.read(path)
        return NO_FILE if data is None else FileId(blob_id(data), self._wheel.mode(path))

    def link(self, path: str) -> bytes | None:
        """Return the target of a symbolic link, or None when ``path`` is none."""
        if not self._tree:
            return None
        try:
            return self._tree.read_link(path)
        except OSError:
            return None

    def write_blocker(self, path: str) -> str | None:
        """Return why nothing may be written to ``path``, or None; see ``target_tree.blocker_in``."""
        return blocker_in(self._tree, path) if self._tree else None

    def _opened(self) -> DirectoryTree:
        assert self._tree is not None
        return self._tree


def read_file(location: Path, path: str) -> bytes | None:
    """Return what git stores for a file of a target; see ``TargetFiles.read``."""
    with TargetFiles(location) as files:
        return files.read(path)
