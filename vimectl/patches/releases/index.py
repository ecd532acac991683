"""List the files of a package in pip's sources: simple indexes (PEP 503, 691), find-links, local folders.

The last list of each package is kept in the user's cache, for use without network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import platformdirs
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from vime_runtime.spec.atomic_io import write_bytes_atomically
from vime_runtime.spec.errors import CheckFailed, VimeError

from vimectl.patches.releases.pip_config import PipConfig
from vimectl.patches.releases.web import NotFound, Web

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a release. ``url`` is ``file:`` for a local one; ``size`` is in bytes.

    ``hashes`` are those that the source states, by algorithm; ``build`` is the build number of a wheel.
    """

    name: str
    url: str
    version: str
    kind: Literal["wheel", "sdist"]
    build: tuple[int, str] = (0, "")
    hashes: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    yanked: bool = False

    @property
    def local(self) -> Path | None:
        """Return the path if the file is on this machine."""
        return _local_path(self.url)


class IndexListing(NamedTuple):
    """The files found, in the order of pip's sources, and the errors of sources that failed."""

    files: list[ReleaseFile]
    errors: list[VimeError]


def list_files(package: str, config: PipConfig, web: Web) -> IndexListing:
    """Return the files of a package in all sources; as with pip, a source that fails is skipped."""
    files: dict[str, ReleaseFile] = {}
    errors: list[VimeError] = []
    name = canonicalize_name(package)
    pages = [(source, False) for source in config.find_links]
    pages += [(f"{index.rstrip('/')}/{name}/", True) for index in config.indexes]
    for address, is_index in pages:
        try:
            for file in _page(address, name, is_index, web):
                files.setdefault(file.name, file)
        except NotFound:
            continue
        except VimeError as e:
            errors.append(e)
    return IndexListing(list(files.values()), errors)


def parse_file_name(name: str, url: str = "", package: str = "", **stated: Any) -> ReleaseFile | None:
    """Parse the name of a release file; None when it is not one (of ``package``, if given).

    ``stated`` are the other fields of the file.
    """
    try:
        if name.endswith(".whl"):
            found, version, build, _ = parse_wheel_filename(name)
            stated |= {"build": (build[0], build[1])} if build else {}
        else:
            found, version = parse_sdist_filename(name)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    if package and found != canonicalize_name(package):
        return None
    return ReleaseFile(name, url, str(version), "wheel" if name.endswith(".whl") else "sdist", **stated)


def _page(address: str, package: str, is_index: bool, web: Web) -> Iterator[ReleaseFile]:
    path = _local_path(address)
    if path is None:
        with web.get(address, {"Accept": _ACCEPT}) as response:
            body, kind, base = response.read(), response.headers.get_content_type(), response.geturl()
        found = _from_json(body, base) if kind.endswith("json") else _from_html(body, base)
    elif path.is_dir() and not is_index:
        found = ({"name": one.name, "url": one.absolute().as_uri()} for one in sorted(path.iterdir()))
    else:
        page = path / "index.html" if path.is_dir() else path
        found = _from_html(page.read_bytes(), page.absolute().as_uri()) if page.is_file() else iter(())
    for stated in found:
        if file := parse_file_name(package=package, **stated):
            yield file


def _from_json(body: bytes, base: str) -> Iterator[dict[str, Any]]:
    try:
        for file in json.loads(body)["files"]:
            yield {
                "name": file["filename"],
                "url": urljoin(base, file["url"]),
                "hashes": file["hashes"],
                "size": file.get("size"),
                "yanked": bool(file.get("yanked")),
            }
    except (ValueError, KeyError, TypeError) as e:
        raise CheckFailed(
            f"{base}: not the response of a package index: {e!r}",
            "check the index in pip's configuration: pip config list",
        ) from e


def _from_html(body: bytes, base: str) -> Iterator[dict[str, Any]]:
    page = _Anchors()
    page.feed(body.decode("utf-8", "replace"))
    for attributes in page.found:
        url, fragment = urldefrag(urljoin(urljoin(base, page.base), attributes["href"] or ""))
        algorithm, equals, digest = fragment.partition("=")
        yield {
            "name": unquote(urlsplit(url).path.rpartition("/")[2]),
            "url": url,
            "hashes": {algorithm: digest} if equals else {},
            "yanked": "data-yanked" in attributes,
        }


class _Anchors(HTMLParser):
    """Collect the attributes of every link, and the base of relative URLs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "base" and attributes.get("href"):
            self.base = attributes["href"] or ""
        if tag == "a" and attributes.get("href"):
            self.found.append(attributes)


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


def remember_listing(package: str, files: Sequence[ReleaseFile]) -> None:
    """Keep the complete list of a package's files."""
    write_cache_file(_listing_path(package), json.dumps([asdict(file) for file in files]).encode())


def last_listing(package: str) -> list[ReleaseFile]:
    """Return the last complete list; empty when this version of the tool has not written one."""
    try:
        entries = json.loads(_listing_path(package).read_text(encoding="utf-8"))
        return [ReleaseFile(**{**entry, "build": tuple(entry["build"])}) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _listing_path(package: str) -> Path:
    return release_cache() / "listings" / f"{package}.json"
