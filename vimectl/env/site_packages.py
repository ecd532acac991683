"""Check what is installed in a site-packages directory against pins, RECORD files and origin markers."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import CheckFailed
from vime_runtime.spec.regular_files import read_regular

from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.stacks.versions import matches
from vimectl.util.dist_info import record_hash

_CREATE_AGAIN = "remove the environment's directory and create it again"


def site_packages(environment: Path) -> Path:
    """Return the site-packages directory of a virtual environment. Raises CheckFailed when it has none."""
    for folder in (environment / "lib").glob("python3.*"):
        return folder / "site-packages"
    raise CheckFailed(f"{environment} has no lib/python3.N/site-packages", _CREATE_AGAIN)


def metadata_folders(site: Path) -> dict[str, Path]:
    """Return the ``.dist-info`` directories in site-packages by canonical distribution name."""
    return {canonicalize_name(path.name.split("-", 1)[0]): path for path in site.glob("*.dist-info")}


def is_complete(metadata: Path, digests: bool = False) -> bool:
    """Return True when every file in a distribution's RECORD exists with its recorded size.

    With ``digests`` every module must also have its recorded digest. Modules are what people edit, and a file
    that is edited in place is edited in uv's cache as well.
    """
    try:
        text = read_regular(metadata / "RECORD").decode()
        rows = list(csv.reader(text.splitlines()))
        return bool(rows) and all(_is_intact(metadata.parent, row, digests) for row in rows)
    except (OSError, ValueError, csv.Error):
        # The installation was interrupted, or the file was damaged.
        return False


def to_install(pins: Iterable[Pin], site: Path) -> list[Pin]:
    """Return the pins that are not installed at their version."""
    folders = metadata_folders(site)
    wanted = []
    for pin in pins:
        folder = folders.get(pin.name)
        version = folder.name.removesuffix(".dist-info").partition("-")[2] if folder else ""
        if not matches(version, pin.version):
            wanted.append(pin)
    return wanted


def incomplete(pins: Iterable[Pin], site: Path, digests: bool = False) -> list[Pin]:
    """Return the pins that are not installed at their version or not completely, see ``is_complete``."""
    pins = list(pins)
    absent, folders = to_install(pins, site), metadata_folders(site)
    return [pin for pin in pins if pin in absent or not is_complete(folders[pin.name], digests)]


def recorded(names: Iterable[str], site: Path) -> list[str]:
    """Return those of the distributions that have a RECORD, which uninstalling needs."""
    folders = metadata_folders(site)
    return sorted(name for name in names if name in folders and (folders[name] / "RECORD").is_file())


def remove_metadata(names: Iterable[str], site: Path) -> None:
    """Remove what is left of the metadata of distributions, which would count as installed.

    An interrupted installation has no RECORD, or an incomplete one. The next one replaces its files.
    """
    folders = metadata_folders(site)
    for name in names:
        if name in folders:
            shutil.rmtree(folders[name])


def check_marker(package: str, origin: Origin, site: Path) -> None:
    """Check by its marker, if it has one, that the installed build is the stack's. Raises CheckFailed."""
    marker = origin.marker
    if marker is None:
        return
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


def _is_intact(site: Path, row: list[str], digests: bool) -> bool:
    path, digest, size = [*row, "", ""][:3]
    if path.endswith(".pyc"):
        return True  # some wheels contain byte code, which compiling overwrites
    if digests and digest.startswith("sha256=") and path.endswith(".py"):
        return record_hash((site / path).read_bytes()) == digest
    return not size or (site / path).stat().st_size == int(size)
