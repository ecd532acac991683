"""Whether an installed distribution is whole, judged by its own RECORD."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

from vimectl.stacks.lock import Pin
from vimectl.stacks.versions import matches


def site_packages(directory: Path) -> Path:
    """Return the site-packages folder of a virtual environment."""
    return next((directory / "lib").glob("python3.*")) / "site-packages"


def metadata_folders(site: Path) -> dict[str, Path]:
    """Return the ``.dist-info`` folders in a site-packages folder by canonical distribution name."""
    return {canonicalize_name(path.name.split("-", 1)[0]): path for path in site.glob("*.dist-info")}


def is_whole(folder: Path) -> bool:
    """Whether every file in a distribution's RECORD exists with its recorded size."""
    try:
        with (folder / "RECORD").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except OSError:
        return False  # pip writes RECORD last: without it the installation was cut off
    return bool(rows) and all(_is_there(folder.parent, row) for row in rows)


def to_install(pins: Iterable[Pin], site: Path, thorough: bool) -> list[Pin]:
    """Return the pins that are not installed at their version; ``thorough`` reads every RECORD as well."""
    folders = metadata_folders(site)
    wanted = []
    for pin in pins:
        folder = folders.get(pin.name)
        version = folder.name.removesuffix(".dist-info").partition("-")[2] if folder else ""
        if not folder or not matches(version, pin.version) or (thorough and not is_whole(folder)):
            wanted.append(pin)
    return wanted


def clear_debris(pins: Iterable[Pin], site: Path) -> None:
    """Remove what makes pip stumble over an installation that was cut off.

    A metadata folder without RECORD cannot be uninstalled; files that pip had moved aside under
    ``~name`` when it was killed belong to nobody.
    """
    folders = metadata_folders(site)
    for pin in pins:
        folder = folders.get(pin.name)
        if folder and not (folder / "RECORD").is_file():
            shutil.rmtree(folder)
    for path in site.glob("~*"):
        shutil.rmtree(path, ignore_errors=True)


def _is_there(site: Path, row: list[str]) -> bool:
    path, _, size = [*row, "", ""][:3]
    if path.endswith(".pyc"):
        return True  # some wheels bring byte code; compiling writes it anew
    try:
        found = (site / path).stat()
    except OSError:
        return False
    return not size or found.st_size == int(size)
