"""Which files of a package the sources have: simple indexes (PEP 503, 691), find-links, local folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version
from vime_runtime.spec.errors import CheckFailed, VimeError

from vimectl.patches.releases.pip_config import Settings
from vimectl.patches.releases.web import NotFound, Web

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class File:
    """One file of a release. ``url`` is its address, ``file:`` for a local one; ``size`` in bytes.

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
        """Where the file is, when it is on this machine."""
        return _local(self.url)


@dataclass
class Listing:
    """The files found, sources in pip's order, and what went wrong with which source."""

    files: list[File] = field(default_factory=list)
    problems: list[VimeError] = field(default_factory=list)


def files(package: str, settings: Settings, web: Web) -> Listing:
    """Ask every source for the files of a package; as with pip, one that fails is not the end."""
    listing = Listing()
    name = canonicalize_name(package)
    pages = [(source, False) for source in settings.find_links]
    pages += [(f"{index.rstrip('/')}/{name}/", True) for index in settings.indexes]
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
            listing.problems.append(e)
    return listing


def described(name: str, url: str, package: str = "") -> File | None:
    """Describe a file by its name; None when it is no release of ``package`` (of any package without one)."""
    try:
        if name.endswith(".whl"):
            found, version, build, _ = parse_wheel_filename(name)
            one = File(name, url, str(version), "wheel", (build[0], build[1]) if build else (0, ""))
        else:
            found, version = parse_sdist_filename(name)
            one = File(name, url, str(version), "sdist")
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    return one if not package or found == canonicalize_name(package) else None


def by_version(found: Iterable[File]) -> dict[Version, list[File]]:
    """Group files by version, oldest version first."""
    groups: dict[Version, list[File]] = {}
    for file in found:
        groups.setdefault(Version(file.version), []).append(file)
    return dict(sorted(groups.items()))


def _page(address: str, package: str, is_index: bool, web: Web) -> Iterator[File]:
    path = _local(address)
    if path is None:
        with web.get(address, {"Accept": _ACCEPT}) as answer:
            body, kind, base = answer.read(), answer.headers.get_content_type(), answer.geturl()
        yield from _parsed(body, kind, base, package)
    elif path.is_dir() and not is_index:
        for one in sorted(path.iterdir()):
            if file := described(one.name, one.absolute().as_uri(), package):
                yield file
    else:
        page = path / "index.html" if path.is_dir() else path
        if page.is_file():
            yield from _parsed(page.read_bytes(), "text/html", page.absolute().as_uri(), package)


def _parsed(body: bytes, kind: str, base: str, package: str) -> Iterator[File]:
    entries = _from_json(body, base) if kind.endswith("json") else _from_html(body)
    for name, url, hashes, size, yanked in entries:
        file = described(name, urljoin(base, url), package)
        if file:
            yield File(file.name, file.url, file.version, file.kind, file.build, hashes, size, yanked)


Entry = tuple[str, str, dict[str, str], "int | None", bool]


def _from_json(body: bytes, base: str) -> Iterator[Entry]:
    try:
        for file in json.loads(body)["files"]:
            yield file["filename"], file["url"], file["hashes"], file.get("size"), bool(file.get("yanked"))
    except (ValueError, KeyError, TypeError) as e:
        raise CheckFailed(f"{base}: not the answer of a package index: {e!r}") from e


def _from_html(body: bytes) -> Iterator[Entry]:
    page = _Anchors()
    page.feed(body.decode("utf-8", "replace"))
    for attributes in page.found:
        url, fragment = urldefrag(urljoin(page.base, attributes["href"] or ""))
        algorithm, equals, digest = fragment.partition("=")
        name = unquote(urlsplit(url).path.rpartition("/")[2])
        yield name, url, {algorithm: digest} if equals else {}, None, "data-yanked" in attributes


class _Anchors(HTMLParser):
    """Collects the attributes of every link, and what their addresses are relative to."""

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


def _local(address: str) -> Path | None:
    """The path that an address without a scheme, or with ``file:``, means."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(address).expanduser()
