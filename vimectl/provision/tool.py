"""Install this very vimectl into an environment: both import packages and the entry points."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from vimectl import __version__
from vimectl.data import checkout_root
from vimectl.errors import MachineLacks

# Written by the installer for one place; a wheel has none of them.
_NOT_IN_WHEEL = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def identity() -> str:
    """Return which vimectl this is: the checkout (an editable install follows it), or the version."""
    return str(checkout_root() or __version__)


def arguments(folder: Path) -> list[str]:
    """Return what pip is given to install this vimectl: the checkout, or a wheel made in ``folder``."""
    root = checkout_root()
    if root:
        return ["--no-build-isolation", "--editable", str(root)]
    return [str(repack(distribution("vimectl"), folder))]


def repack(installed: Distribution, folder: Path) -> Path:
    """Make a wheel in ``folder`` from the files of an installed distribution and return its path.

    Raises:
        MachineLacks: the installation has no RECORD, so its files are not known.
    """
    if installed.files is None:
        name = installed.metadata["Name"]
        raise MachineLacks(f"the installed {name} has no RECORD", f"install {name} from its wheel")
    info = next(file.parent.name for file in installed.files if file.name == "METADATA")
    wheel = folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    rows: list[list[str]] = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in installed.files:
            path = file.as_posix()
            if path.startswith("../") or file.name in _NOT_IN_WHEEL or "__pycache__" in file.parts:
                continue
            content = file.read_binary()
            archive.writestr(path, content)
            rows.append([path, _record_digest(content), str(len(content))])
        record = f"{info}/RECORD"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, [record, "", ""]])
        archive.writestr(record, text.getvalue())
    return wheel


def _record_digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
