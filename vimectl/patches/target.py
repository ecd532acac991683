"""Where a package is: in this interpreter whatever its distribution is called, or in a given place."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vime_runtime.spec.errors import UsageError

from vimectl.patches import metadata, tree

Kind = Literal["site-packages", "git", "editable", "tree", "wheel"]


@dataclass(frozen=True)
class Target:
    """A package in a directory, or in a wheel, which is only read.

    ``location`` holds the package (``location/vllm/__init__.py`` exists) or is the wheel; ``record`` is the
    RECORD file that lists its files, when it was unpacked from a wheel.
    """

    package: str
    version: str
    location: Path
    kind: Kind
    record: Path | None = None


def installed(package: str, module: str, version: str | None = None) -> Target | None:
    """Find ``package`` as this interpreter would import it, or return None. Nothing is imported.

    Raises UsageError when its version cannot be told and none is given.
    """
    top, *rest = module.split("/")
    spec = importlib.util.find_spec(top)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if Path(place, *rest, "__init__.py").is_file():
            return _directory(Path(place).resolve().parent, package, module, version, editable=True)
    return None


def at(location: Path, package: str, module: str, version: str | None = None) -> Target | None:
    """Describe the package in a directory or a wheel, or return None when it is not there.

    A directory holds it itself or, as some source archives do, in ``src``.
    Raises UsageError when its version cannot be told and none is given, or when a wheel is damaged.
    """
    location = location.resolve()
    if tree.is_wheel(location):
        return _wheel(location, package, module, version)
    for holder in (location, location / "src"):
        if (holder / module / "__init__.py").is_file():
            return _directory(holder.resolve(), package, module, version, editable=False)
    return None


def _directory(location: Path, package: str, module: str, version: str | None, editable: bool) -> Target:
    """``editable``: it may be an editable install of this interpreter."""
    if wheel := metadata.of_wheel(location, package, module):
        version = version or metadata.version(wheel / "METADATA")
        # An installer leaves its name; a wheel that was only unpacked has no such file.
        kind: Kind = "site-packages" if (wheel / "INSTALLER").is_file() else "tree"
        return Target(package, _stated(version, package, location), location, kind, wheel / "RECORD")
    origin = metadata.of_editable(location) if editable else None
    found = origin or metadata.of_source(location)
    version = version or (metadata.version(found) if found else None)
    kind = "editable" if origin else "git" if metadata.tracked(location, f"{module}/__init__.py") else "tree"
    return Target(package, _stated(version, package, location), location, kind)


def _wheel(location: Path, package: str, module: str, version: str | None) -> Target | None:
    wheel = tree.wheel(location)
    names = wheel.paths()
    if f"{module}/__init__.py" not in names:
        return None
    name = next((name for name in names if name.endswith(".dist-info/METADATA")), None)
    if version is None and name:
        version = metadata.version_in(wheel.read(name) or b"")
    return Target(package, _stated(version, package, location), location, "wheel")


def _stated(version: str | None, package: str, location: Path) -> str:
    if not version:
        raise UsageError(f"{location}: the version of {package} is not stated", "state it with --version V")
    return version
