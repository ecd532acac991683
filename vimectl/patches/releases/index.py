"""List the files of a package in pip's sources: simple indexes (PEP 503, 691), find-links, local folders.

The last list of each package is kept in the user's cache, for use without network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal
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
from packaging.version import Version
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


@dataclass
class IndexListing:
    """The files found, in the order of pip's sources, and the errors of sources that failed."""

    files: list[ReleaseFile] = field(default_factory=list)
    errors: list[VimeError] = field(default_factory=list)


def list_files(package: str, config: PipConfig, web: Web) -> IndexListing:
    """Return the files of a package in all sources; as with pip, a source that fails is skipped."""
    listing = IndexListing()
    name = canonicalize_name(package)
    pages = [(source, False) for source in config.find_links]
    pages += [(f"{index.rstrip('/')}/{name}/", True) for index in config.indexes]
    seen: set[str] = set()
    for address, is_index in pages:
        try:
            for file in _page(address, name, is_index, web):
                if file.name not in seen:
                    listing.files.append(file)
                    seen.add(file.name)
        except NotFound:
            continue
        except VimeError as e:
            listing.errors.append(e)
    return listing


def parse_file_name(name: str, url: str, package: str = "") -> ReleaseFile | None:
    """Parse the name of a release file; None when it is not one (of ``package``, if given)."""
    try:
        if name.endswith(".whl"):
            found, version, build, _ = parse_wheel_filename(name)
            one = ReleaseFile(name, url, str(version), "wheel", (build[0], build[1]) if build else (0, ""))
        else:
            found, version = parse_sdist_filename(name)
            one = ReleaseFile(name, url, str(version), "sdist")
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    return one if not package or found == canonicalize_name(package) else None


def by_version(found: Iterable[ReleaseFile]) -> dict[Version, list[ReleaseFile]]:
    """Group files by version, oldest version first."""
    groups: dict[Version, list[ReleaseFile]] = {}
    for file in found:
        groups.setdefault(Version(file.version), []).append(file)
    return dict(sorted(groups.items()))


def _page(address: str, package: str, is_index: bool, web: Web) -> Iterator[ReleaseFile]:
    path = _local_path(address)
    if path is None:
        with web.get(address, {"Accept": _ACCEPT}) as response:
            body, kind, base = response.read(), response.headers.get_content_type(), response.geturl()
        yield from _parsed(body, kind, base, package)
    elif path.is_dir() and not is_index:
        for one in sorted(path.iterdir()):
            if file := parse_file_name(one.name, one.absolute().as_uri(), package):
                yield file
    else:
        page = path / "index.html" if path.is_dir() else path
        if page.is_file():
            yield from _parsed(page.read_bytes(), "text/html", page.absolute().as_uri(), package)


def _parsed(body: bytes, kind: str, base: str, package: str) -> Iterator[ReleaseFile]:
    entries = _from_json(body, base) if kind.endswith("json") else _from_html(body)
    for name, url, hashes, size, yanked in entries:
        file = parse_file_name(name, urljoin(base, url), package)
        if file:
            yield replace(file, hashes=hashes, size=size, yanked=yanked)


_IndexEntry = tuple[str, str, dict[str, str], "int | None", bool]


def _from_json(body: bytes, base: str) -> Iterator[_IndexEntry]:
    try:
        for file in json.loads(body)["files"]:
            yield file["filename"], file["url"], file["hashes"], file.get("size"), bool(file.get("yanked"))
    except (ValueError, KeyError, TypeError) as e:
        raise CheckFailed(
            f"{base}: not the response of a package index: {e!r}",
            "check the index in pip's configuration: pip config list",
        ) from e


def _from_html(body: bytes) -> Iterator[_IndexEntry]:
    page = _Anchors()
    page.feed(body.decode("utf-8", "replace"))
    for attributes in page.found:
        url, fragment = urldefrag(urljoin(page.base, attributes["href"] or ""))
        algorithm, equals, digest = fragment.partition("=")
        name = unquote(urlsplit(url).path.rpartition("/")[2])
        yield name, url, {algorithm: digest} if equals else {}, None, "data-yanked" in attributes


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
