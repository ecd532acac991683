"""List the files of a package in pip's sources: simple indexes (PEP 503, 691), find-links, local folders.

The last answer of each server is kept in the user's cache, for use without network. A page is checked before
it is used: its size, its structure, and every field of the package's files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import platformdirs
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from vime_runtime.spec.atomic_io import write_bytes_atomically
from vime_runtime.spec.errors import UsageError, VimeError
from vime_runtime.spec.regular_files import read_regular

from vimectl.releases.pip_config import PipConfig
from vimectl.releases.web import NotFound, Web, shown, without_credentials
from vimectl.util.transfer_limits import MAX_FILE_BYTES

# Far more than any package has.
MAX_PAGE = 16 * 1024**2
MAX_FILES = 50_000
# More arrays, objects or tags than so many files have take a hundred times the memory of the page.
_MAX_NODES = 8 * MAX_FILES
_LONG_TAG = re.compile(rb"<[^<]{65536}")
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


# The strongest first; an index states SHA-256, older ones the others.
ALGORITHMS = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")
# The name of the file is one in the user's cache too. Wheels have a tag that nothing else checks.
_NAME = re.compile(r"[\w.+!-]{1,200}", re.ASCII)
# No URL has these: they are control characters, or half of a character.
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HINT = "check the index in pip's configuration: pip config list"


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a release. ``url`` is ``file:`` for a local one; ``size`` is in bytes.

    ``hashes`` are those that the source states and hashlib has, by algorithm, in lower case; without any the
    content of the file is not verified. ``build`` is the build number of a wheel, ``package`` its canonical
    name.
    """

    name: str
    url: str
    version: str
    build: tuple[()] | tuple[int, str] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    yanked: bool = False
    package: str = ""

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
    pages += [(_page_address(index, name), True) for index in config.indexes]
    for address, is_index in pages:
        for file in _files_or_copy(address, is_index, name, web, errors):
            files.setdefault(file.name, file)
    return list(files.values()), errors


def list_find_links(config: PipConfig, web: Web) -> tuple[list[ReleaseFile], list[VimeError]]:
    """Return the files of all packages in pip's find-links, and the errors of those that failed."""
    files: list[ReleaseFile] = []
    errors: list[VimeError] = []
    for source in config.find_links:
        try:
            files += _files_on(source, False, "", web)
        except VimeError as e:
            errors.append(e)
    return files, errors


def list_accepted(package: str, sha256: Set[str], index: str, web: Web) -> list[ReleaseFile]:
    """Return the files of a package on an index that have one of these digests, or no stated SHA-256.

    The others are not looked at: a page can list thousands. Nothing is kept for use without network.
    Raises UsageError or MissingRequirement when the page cannot be read.
    """
    name = canonicalize_name(package)
    try:
        return _files_on(_page_address(index, name), True, name, web, sha256)
    except NotFound:
        return []


def parse_file_name(name: str, url: str = "", package: str = "", **stated: Any) -> ReleaseFile | None:
    """Parse the name of a release file; None when it is not one (of ``package``, if given).

    ``stated`` are the other fields of the file.
    """
    if not _NAME.fullmatch(name):
        return None
    try:
        if name.endswith(".whl"):
            found, version, stated["build"], _ = parse_wheel_filename(name)
        else:
            found, version = parse_sdist_filename(name)
    except ValueError:
        return None
    if package and found != package:
        return None
    return ReleaseFile(name, url, str(version), package=found, **stated)


def _page_address(index: str, package: str) -> str:
    return f"{index.rstrip('/')}/{package}/"


def _files_or_copy(
    address: str, is_index: bool, package: str, web: Web, errors: list[VimeError]
) -> list[ReleaseFile]:
    """Return the files of a package on a page, or else on its last copy; add the error if it failed."""
    digest = hashlib.sha256(without_credentials(address).encode()).hexdigest()
    copy = release_cache() / "pages" / f"{digest[:32]}.json"
    is_local = _local_path(address) is not None
    try:
        files = _files_on(address, is_index, package, web)
        if not is_local:
            write_cache_file(copy, json.dumps({"files": [_entry(file) for file in files]}).encode())
        return files
    except NotFound:
        return []
    except VimeError as e:
        errors.append(e)
        with suppress(OSError, VimeError):
            if not is_local:
                return _release_files(_from_json(read_regular(copy), address), package, address)
        return []


def _files_on(
    address: str, is_index: bool, package: str, web: Web, sha256: Set[str] | None = None
) -> list[ReleaseFile]:
    """Return the files of a package on a page; of every package without one.

    With ``sha256`` those files are left out of which another digest is stated.
    """
    if path := _local_path(address):
        try:
            return _local_files(path, is_index, package, sha256)
        except OSError as e:
            raise UsageError(f"{shown(address)}: cannot be read: {e.strerror}", _HINT) from e
    page = web.read(address, {"Accept": _ACCEPT}, MAX_PAGE)
    parse = _from_json if "json" in page.content_type else _from_html
    return _release_files(parse(page.content, page.url), package, page.url, sha256)


def _local_files(path: Path, is_index: bool, package: str, sha256: Set[str] | None) -> list[ReleaseFile]:
    """Return the files in a folder, or on a page of this machine; none if there is no such page."""
    if path.is_dir() and not is_index:
        entries = [{"filename": one.name, "url": one.absolute().as_uri()} for one in sorted(path.iterdir())]
        found = (parse_file_name(entry["filename"], entry["url"], package) for entry in entries)
        return [file for file in found if file]
    page = path / "index.html" if path.is_dir() else path
    base = page.absolute().as_uri()
    try:
        return _release_files(_from_html(read_regular(page, MAX_PAGE), base), package, base, sha256)
    except FileNotFoundError:
        return []


def _release_files(
    entries: list[Any], package: str, base: str, sha256: Set[str] | None = None
) -> list[ReleaseFile]:
    """Return the files of a package on a page. Raises UsageError for a field that is not as PEP 691 says."""
    if len(entries) > MAX_FILES:
        raise UsageError(
            f"{shown(base)}: lists {len(entries)} files; at most {MAX_FILES} are expected", _HINT
        )
    files = []
    for number, entry in enumerate(entries, 1):
        if sha256 is not None and _has_other_digest(entry, sha256):
            continue
        try:
            file = _release_file(entry, package, base)
        except (ValueError, KeyError, TypeError) as e:
            problem = f"no {e}" if isinstance(e, KeyError) else str(e)
            raise UsageError(f"{shown(base)}: file {number}: {shown(problem)}", _HINT) from e
        files += [file] if file else []
    return files


def _has_other_digest(entry: Any, sha256: Set[str]) -> bool:
    hashes = entry.get("hashes") if isinstance(entry, dict) else None
    stated = hashes.get("sha256") if isinstance(hashes, dict) else None
    return isinstance(stated, str) and stated.lower() not in sha256


def _release_file(entry: Any, package: str, base: str) -> ReleaseFile | None:
    """Return a file of a page, None if it is of another package. Raises ValueError, KeyError or TypeError."""
    if not isinstance(entry, dict):
        raise ValueError(f"not an object, but {entry!r:.80}")
    name, url, size = entry["filename"], entry["url"], entry.get("size")
    for key, value in (("filename", name), ("url", url)):
        if not isinstance(value, str):
            raise ValueError(f"its {key} is not a text, but {value!r:.80}")
    if _UNSAFE.search(name):
        raise ValueError(f"its name has a slash or a control character: {name!r:.200}")
    if (file := parse_file_name(name, urljoin(base, url), package)) is None:
        return None
    allowed = ("http", "https") if urlsplit(base).scheme in ("http", "https") else ("http", "https", "file")
    if urlsplit(file.url).scheme not in allowed or _UNSAFE.search(url.replace("/", "")):
        raise ValueError(f"{name} is at {url!r:.200}, which is on no server")
    if size is not None and not (type(size) is int and 0 <= size <= MAX_FILE_BYTES):
        raise ValueError(f"{name} has the size {size!r:.80}, not a number of at most {MAX_FILE_BYTES} bytes")
    hashes = entry.get("hashes", {})
    if not isinstance(hashes, dict):
        raise ValueError(f"{name} has as hashes no object, but {hashes!r:.80}")
    known = {}
    for algorithm in (algorithm for algorithm in ALGORITHMS if algorithm in hashes):
        digits = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
        digest = hashes[algorithm]
        if not (isinstance(digest, str) and re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", digest)):
            raise ValueError(f"{name} has as {algorithm} {digest!r:.80}")
        known[algorithm] = digest.lower()
    return replace(file, hashes=known, size=size, yanked=bool(entry.get("yanked")))


def _entry(file: ReleaseFile) -> dict[str, Any]:
    """Return what a page states about a file, for the copy in the user's cache."""
    stated = {"hashes": file.hashes, "size": file.size, "yanked": file.yanked}
    return {"filename": file.name, "url": file.url, **stated}


def _from_json(body: bytes, base: str) -> list[Any]:
    """Return what a page states about each file."""
    try:
        if body.count(b"[") + body.count(b"{") > _MAX_NODES:
            raise ValueError("too many arrays and objects")
        files = json.loads(body)["files"]
        if not isinstance(files, list):
            raise TypeError("its files are not an array")
        return files
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise UsageError(f"{shown(base)}: not the response of a package index: {e!r:.200}", _HINT) from e


def _from_html(body: bytes, base: str) -> list[Any]:
    """Return what the links of a page state about each file."""
    if body.count(b"<") > _MAX_NODES or _LONG_TAG.search(body):
        raise UsageError(f"{shown(base)}: not the page of a package index: too many or too long tags", _HINT)
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
        try:
            url, fragment = urldefrag(urljoin(self._base, (attributes.get("href") or "").strip()))
            name = unquote(urlsplit(url).path.rpartition("/")[2])
        except ValueError:  # not the link of a file
            return
        if tag == "base":
            self._base = url
        elif tag == "a":
            algorithm, equals, digest = fragment.partition("=")
            hashes = {algorithm: digest} if equals else {}
            self.entries.append(
                {"filename": name, "url": url, "hashes": hashes, "yanked": "data-yanked" in attributes}
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
