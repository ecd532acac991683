"""Check what is installed in a site-packages directory against pins, RECORD files and origin markers."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import CheckFailed

from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.stacks.versions import matches

_CREATE_AGAIN = "remove the environment's directory and create it again"


def site_packages(environment: Path) -> Path:
    """Return the site-packages directory of a virtual environment."""
    return next((environment / "lib").glob("python3.*")) / "site-packages"


def metadata_folders(site: Path) -> dict[str, Path]:
    """Return the ``.dist-info`` directories in site-packages by canonical distribution name."""
    return {canonicalize_name(path.name.split("-", 1)[0]): path for path in site.glob("*.dist-info")}


def is_complete(metadata: Path) -> bool:
    """Return True when every file in a distribution's RECORD exists with its recorded size."""
    try:
        with (metadata / "RECORD").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except OSError:
        return False  # pip writes RECORD last: the installation was interrupted
    return bool(rows) and all(_exists(metadata.parent, row) for row in rows)


def to_install(pins: Iterable[Pin], site: Path, thorough: bool) -> list[Pin]:
    """Return the pins that are not installed at their version; ``thorough`` also checks every RECORD."""
    folders = metadata_folders(site)
    wanted = []
    for pin in pins:
        folder = folders.get(pin.name)
        version = folder.name.removesuffix(".dist-info").partition("-")[2] if folder else ""
        if not folder or not matches(version, pin.version) or (thorough and not is_complete(folder)):
            wanted.append(pin)
    return wanted


def remove_partial_installs(pins: Iterable[Pin], site: Path) -> None:
    """Remove the leftovers of an interrupted installation, which make pip fail.

    A metadata directory without RECORD cannot be uninstalled. Files that pip moved to ``~name`` before it was
    killed belong to no distribution.
    """
    folders = metadata_folders(site)
    for pin in pins:
        folder = folders.get(pin.name)
        if folder and not (folder / "RECORD").is_file():
            shutil.rmtree(folder)
    for path in site.glob("~*"):
        shutil.rmtree(path, ignore_errors=True)


def check_marker(package: str, origin: Origin, site: Path) -> None:
    """Check by its marker that the installed build is the one of the stack. Raises CheckFailed."""
    marker = origin.marker
    try:
        text = (site / marker.path).read_text(encoding="utf-8", errors="replace")
    except OSError as e:
        raise CheckFailed(
            f"{package}: {site / marker.path} cannot be read: {e.strerror}", _CREATE_AGAIN
        ) from e
    if not re.search(marker.pattern, text, re.MULTILINE):
        raise CheckFailed(
            f"{package}: {site / marker.path} does not say {marker.meaning}",
            _CREATE_AGAIN,
        )


def _exists(site: Path, row: list[str]) -> bool:
    path, _, size = [*row, "", ""][:3]
    if path.endswith(".pyc"):
        return True  # some wheels contain byte code, which compiling overwrites
    try:
        found = (site / path).stat()
    except OSError:
        return False
    return not size or found.st_size == int(size)
