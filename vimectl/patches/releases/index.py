"""List the files of a package in pip's sources: simple indexes (PEP 503, 691), find-links, local folders.

The last answer of each server is kept in the user's cache, for use without network.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import platformdirs
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from vime_runtime.spec.atomic_io import write_bytes_atomically
from vime_runtime.spec.errors import CheckFailed, VimeError

from vimectl.patches.releases.pip_config import PipConfig
from vimectl.patches.releases.web import NotFound, Web, without_credentials

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a release. ``url`` is ``file:`` for a local one; ``size`` is in bytes.

    ``hashes`` are those that the source states, by algorithm; ``build`` is the build number of a wheel.
    """

    name: str
    url: str
    version: str
    build: tuple[()] | tuple[int, str] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    yanked: bool = False

    @property
    def kind(self) -> str:
        """Return ``wheel`` or ``sdist``."""
        return "wheel" if self.name.endswith(".whl") else "sdist"

    @property
    def local(self) -> Path | None:
        """Return the path if the file is on this machine."""
        return _local_path(self.url)


def list_files(package: str, config: PipConfig, web: Web) -> tuple[list[ReleaseFile], list[VimeError]]:
    """Return the files of a package in all sources, and the errors of those that failed.

    Of a source that fails the files that it had the last time are returned.
    """
    files: dict[str, ReleaseFile] = {}
    errors: list[VimeError] = []
    name = canonicalize_name(package)
    pages = [(source, False) for source in config.find_links]
    pages += [(f"{index.rstrip('/')}/{name}/", True) for index in config.indexes]
    for address, is_index in pages:
        for entry in _entries(address, is_index, web, errors):
            if file := parse_file_name(package=name, **entry):
                files.setdefault(file.name, file)
    return list(files.values()), errors


def parse_file_name(name: str, url: str = "", package: str = "", **stated: Any) -> ReleaseFile | None:
    """Parse the name of a release file; None when it is not one (of ``package``, if given).

    ``stated`` are the other fields of the file.
    """
    try:
        if name.endswith(".whl"):
            found, version, stated["build"], _ = parse_wheel_filename(name)
        else:
            found, version = parse_sdist_filename(name)
    except ValueError:
        return None
    return None if package and found != package else ReleaseFile(name, url, str(version), **stated)


def _entries(address: str, is_index: bool, web: Web, errors: list[VimeError]) -> list[dict[str, Any]]:
    """Return what a page, or else its last copy, states about files; add the error if it failed."""
    if path := _local_path(address):
        if path.is_dir() and not is_index:
            return [{"name": one.name, "url": one.absolute().as_uri()} for one in sorted(path.iterdir())]
        page = path / "index.html" if path.is_dir() else path
        return _from_html(page.read_bytes(), page.absolute().as_uri()) if page.is_file() else []
    digest = hashlib.sha256(without_credentials(address).encode()).hexdigest()
    copy = release_cache() / "pages" / f"{digest[:32]}.json"
    try:
        response = web.read(address, {"Accept": _ACCEPT})
        parse = _from_json if "json" in response.headers.get("Content-Type", "") else _from_html
        entries = parse(response.content, response.url)
        write_cache_file(copy, json.dumps(entries).encode())
        return entries
    except NotFound:
        return []
    except VimeError as e:
        errors.append(e)
        with suppress(OSError, ValueError):
            return list(json.loads(copy.read_bytes()))
        return []


def _from_json(body: bytes, base: str) -> list[dict[str, Any]]:
    try:
        return [
            {
                "name": file["filename"],
                "url": urljoin(base, file["url"]),
                "hashes": file["hashes"],
                "size": file.get("size"),
                "yanked": bool(file.get("yanked")),
            }
            for file in json.loads(body)["files"]
        ]
    except (ValueError, KeyError, TypeError) as e:
        raise CheckFailed(
            f"{base}: not the response of a package index: {e!r}",
            "check the index in pip's configuration: pip config list",
        ) from e


def _from_html(body: bytes, base: str) -> list[dict[str, Any]]:
    page = _Anchors(base)
    page.feed(body.decode("utf-8", "replace"))
    return page.entries


class _Anchors(HTMLParser):
    """Collect the files that links point to."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.entries: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        url, fragment = urldefrag(urljoin(self._base, attributes.get("href") or ""))
        if tag == "base":
            self._base = url
        elif tag == "a":
            algorithm, equals, digest = fragment.partition("=")
            name = unquote(urlsplit(url).path.rpartition("/")[2])
            hashes = {algorithm: digest} if equals else {}
            self.entries.append(
                {"name": name, "url": url, "hashes": hashes, "yanked": "data-yanked" in attributes}
            )


def _local_path(address: str) -> Path | None:
    """Return the path of an address without a scheme or with ``file:``, otherwise None."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(address).expanduser()


def release_cache() -> Path:
    """Return the folder in the user's cache for all data about releases."""
    return Path(platformdirs.user_cache_dir("vimectl")) / "releases"


def write_cache_file(path: Path, content: bytes) -> None:
    """Write a file of the cache, completely or not at all. A cache that is not writable is not used."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(path, content)
