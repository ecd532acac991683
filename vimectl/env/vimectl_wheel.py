"""Make a wheel of the running vimectl, to install it into an environment or an image.

The wheel of a checkout and that of an installed vimectl with the same files have the same bytes, on any
machine: its digest proves a wheel that was carried to another one.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl import __version__
from vimectl.util.dist_info import record_hash
from vimectl.util.host import Host
from vimectl.util.resources import checkout_root

# As hatchling dates the files of a wheel.
_DATE = (2020, 2, 2, 0, 0, 0)
_SECONDS = 10.0
# Written by the installer; a wheel has none of these.
_NOT_IN_WHEEL = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}


def running_vimectl() -> str:
    """Return the path of the checkout that vimectl runs from, or its version when it is installed."""
    return str(checkout_root() or __version__)


def revision() -> str:
    """Return the commit of the checkout that vimectl runs from, or "" without one or with local changes."""
    root = checkout_root()
    if root is None:
        return ""
    host = Host()
    edited = host.run(["git", "-C", str(root), "status", "--porcelain"], _SECONDS)
    commit = host.run(["git", "-C", str(root), "rev-parse", "HEAD"], _SECONDS)
    return commit.stdout.strip() if edited.code == commit.code == 0 and not edited.stdout else ""


def install_arguments(folder: Path) -> list[str]:
    """Return uv's arguments to install this vimectl: the checkout, or a wheel made in ``folder``."""
    root = checkout_root()
    what = ["--editable", str(root)] if root else [str(repack(distribution("vimectl"), folder))]
    return ["--reinstall-package=vimectl", *what]


def make_wheel(folder: Path) -> Path:
    """Make a wheel of this vimectl in ``folder``, reproducibly, and return its path.

    Raises:
        MissingRequirement: this interpreter has no hatchling to build the checkout with; or the installed
            vimectl has no RECORD.
        CheckFailed: hatchling failed.
        OSError: the disk is full.
    """
    root = checkout_root()
    if root is None:
        return repack(distribution("vimectl"), folder)
    built = folder.absolute() / "built"
    # An absolute path, because hatchling runs in the checkout.
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if "No module named hatchling" in done.stderr:
        raise MissingRequirement(
            f"{sys.executable} has no hatchling to build a wheel of the checkout {root}",
            "pip install hatchling, or use an installed vimectl instead of a checkout",
        )
    full = os.strerror(errno.ENOSPC)
    if done.returncode != 0 and full in done.stderr:
        raise OSError(errno.ENOSPC, full, str(folder))
    if done.returncode != 0:
        raise CheckFailed(
            f"building a wheel of {root} failed: {done.stderr.strip().splitlines()[-1]}",
            f"run `{sys.executable} -m hatchling build` there to see the whole output",
        )
    (wheel,) = built.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    shutil.rmtree(built)
    return _write(contents, folder)


def repack(installed: Distribution, folder: Path) -> Path:
    """Make a wheel in ``folder`` from the files of an installed distribution and return its path.

    The same files give the same bytes: it contains no date and no path of this machine.

    Raises:
        MissingRequirement: the installation has no RECORD, so its files are not known.
    """
    if installed.files is None:
        name = installed.metadata["Name"]
        raise MissingRequirement(f"the installed {name} has no RECORD", f"install {name} from its wheel")
    contents = {}
    info = next(file.parent.name for file in installed.files if file.match("*.dist-info/METADATA"))
    for file in installed.files:
        path = file.as_posix()
        outside, share, name = path.partition("/share/")
        if share and outside.strip("./") == "":  # the man page; the scripts are made by the installer
            path = f"{info.removesuffix('.dist-info')}.data/data/share/{name}"
        if not path.startswith("../") and "__pycache__" not in file.parts:
            contents[path] = file.read_binary()
    return _write(contents, folder)


def _write(contents: Mapping[str, bytes], folder: Path) -> Path:
    """Write a wheel with these files in ``folder``, without what an installer added, and a new RECORD."""
    info = next(path.rpartition("/")[0] for path in contents if path.endswith(".dist-info/METADATA"))
    wheel = folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    rows: list[list[str]] = []
    # Not compressed: other versions of zlib write other bytes.
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(contents):
            if path.rpartition("/")[2] not in _NOT_IN_WHEEL:
                archive.writestr(_entry(path, contents[path]), contents[path])
                rows.append([path, record_hash(contents[path]), str(len(contents[path]))])
        record = f"{info}/RECORD"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, [record, "", ""]])
        archive.writestr(_entry(record, b""), text.getvalue())
    return wheel


def _entry(path: str, content: bytes) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, _DATE)
    # By content, because an installed file has the permissions of the installer's umask.
    entry.external_attr = (0o100755 if content.startswith(b"#!") else 0o100644) << 16
    return entry
