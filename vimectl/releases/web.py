"""Send HTTP requests as pip does: with its proxy, certificates, trusted hosts and credentials."""

from __future__ import annotations

import re
import ssl
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.utils import requote_uri
from urllib3.exceptions import HTTPError
from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl import __version__
from vimectl.releases.allowance import Allowance, LimitedAdapter
from vimectl.releases.pip_config import PipConfig
from vimectl.util.host import run_command

# Temporary failures of a server or gateway, and too many requests.
_TEMPORARY = (429, 500, 502, 503, 504)
_BACKOFF_SECONDS = 0.5
_TRIES = 3
_MAX_REDIRECTS = 20
_CHUNK = 64 * 1024
# How an error of urllib3 begins.
_CONNECTION = re.compile(r"^\w+\(host=[^)]*\): ")
_HINT = "check pip's configuration (pip config list)"
_NO_INDEX = f"{_HINT}; without an index, name a folder, wheel or source archive instead"


class NotFound(MissingRequirement):
    """The server has nothing at this URL."""


class NoRanges(MissingRequirement):
    """The server does not send parts of this file."""


class Page(NamedTuple):
    """A response with its body. ``url`` is the one after redirects; ``range`` is the Content-Range header."""

    url: str
    content: bytes
    content_type: str
    range: str


class Web:
    """An HTTP client for the sources of one configuration.

    Credentials are those of pip's URLs, of pip's keyring, or of ~/.netrc. Each is sent to its own host only.
    Proxies and authorities of the environment are used where pip's configuration has none. What a server
    sends is limited in time and size, see ``Allowance``. One thread may use it; ``connections`` is the number
    of clients that work in parallel.
    """

    def __init__(self, config: PipConfig, connections: int = 1) -> None:
        proxies = config.proxy and {"http": config.proxy, "https": config.proxy}
        self._options: dict[str, Any] = {"timeout": config.timeout, "verify": config.cert}
        self._options |= {"cert": config.client_cert, "proxies": proxies}
        self._session = _Session()
        self._session.headers.update({"User-Agent": f"vimectl/{__version__}", "Accept-Encoding": "identity"})
        self._allowance = Allowance(config.timeout, connections)
        # Of connections alone: for a repeated status, urllib3 would read the body, however long it is.
        retry = urllib3.Retry(2, backoff_factor=_BACKOFF_SECONDS, respect_retry_after_header=False)
        self._session.mount("http://", LimitedAdapter(self._allowance, max_retries=retry))
        self._session.mount("https://", _SystemAuthorities(self._allowance, max_retries=retry))
        for host in config.trusted_hosts:
            for prefix in (f"https://{host}/", f"https://{host}:"):
                self._session.mount(prefix, _Unverified(self._allowance, max_retries=retry))
        # By scheme and host.
        self._credentials: dict[tuple[str, ...], tuple[str, str]] = {}
        for url in (*config.indexes, *config.find_links):
            parts = urlsplit(url)
            if parts.username:
                user, password = unquote(parts.username), unquote(parts.password or "")
                if parts.password is None and config.keyring_provider in ("import", "subprocess"):
                    password = _from_keyring(without_credentials(url), user)
                self._credentials[urlsplit(without_credentials(url))[:2]] = user, password

    def get(self, url: str, headers: dict[str, str] | None = None, limit: int = 0) -> requests.Response:
        """Return the response to a GET, with its body not yet read; redirects are followed.

        ``limit`` is the largest body in bytes that the caller reads.

        Raises:
            NotFound: 404 or 410.
            UsageError: a redirect leads elsewhere than to a server.
            MissingRequirement: no connection, or the server refuses; temporary failures are retried first.
        """
        address = without_credentials(url)
        for _ in range(_MAX_REDIRECTS):
            response = self._send_repeatedly(address, headers, limit)
            if not response.is_redirect:
                break
            response.close()
            address = _redirect_target(address, response.headers["location"])
        else:
            raise MissingRequirement(f"{shown(url)}: more than {_MAX_REDIRECTS} redirects", _HINT)
        if response.ok or response.status_code == 416:
            return response
        response.close()
        if response.status_code in (404, 410):
            raise NotFound(f"{shown(address)}: not found", _HINT)
        hint = f"{_HINT}, or ~/.netrc, for its credentials" if response.status_code in (401, 403) else _HINT
        reason = shown(f"{response.status_code} {response.reason}")
        raise MissingRequirement(f"{shown(address)}: the server responded {reason}", hint)

    def read(self, url: str, headers: dict[str, str], limit: int, part: bool = False) -> Page:
        """Return a response with its body. One that breaks off is requested again.

        Raises:
            NoRanges: it is to be a part of the file and is not.
            UsageError: the body is longer than ``limit``, or compressed in an unknown way.
            Others as ``get``.
        """
        for _ in range(_TRIES):
            with self.get(url, headers, limit) as response:
                if part and response.status_code != 206:
                    raise NoRanges(f"{shown(url)}: parts of it are not sent", "try again")
                with suppress(HTTPError):
                    body = b"".join(body_of(response, limit))
                    if len(body) >= (content_length(response) or 0):
                        kind = response.headers.get("Content-Type", "")
                        decoded = body if part else _decoded(response, body, limit)
                        return Page(response.url, decoded, kind, response.headers.get("Content-Range", ""))
        raise MissingRequirement(f"{shown(url)}: the connection breaks off", "try again")

    def size(self, url: str) -> int | None:
        """Return the size of a file that the server states, None without one. Errors are those of ``get``."""
        with self.get(url) as response:
            return content_length(response)

    def _send_repeatedly(self, address: str, headers: dict[str, str] | None, limit: int) -> requests.Response:
        """Return the response of the server. A temporary failure is repeated."""
        for number in range(_TRIES):
            time.sleep(_BACKOFF_SECONDS * (2**number - 1))
            response = self._send(address, headers, limit)
            if response.status_code not in _TEMPORARY:
                break
            response.close()
        return response

    def _send(self, address: str, headers: dict[str, str] | None, limit: int) -> requests.Response:
        auth = self._credentials.get(urlsplit(address)[:2])
        self._allowance.begin(shown(urlsplit(address).netloc), limit)
        try:
            return self._session.get(address, headers=headers, auth=auth, stream=True, **self._options)
        # Most are RequestException, an OSError; so is a certificate that cannot be read. Others are of URLs.
        except (OSError, ValueError, HTTPError) as e:
            reason = _CONNECTION.sub("", str(getattr(e.args[0], "reason", e) if e.args else e))
            raise MissingRequirement(f"{shown(address)} cannot be reached: {shown(reason)}", _NO_INDEX) from e


class _Session(requests.Session):
    """A session that follows no redirect: requests would read their bodies, however long they are."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _SystemAuthorities(LimitedAdapter):
    """Accept the certificate authorities of the system too, as pip does."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=ssl.create_default_context(), **options)


class _Unverified(LimitedAdapter):
    """Accept any certificate, of the hosts that pip trusts."""

    def send(self, *args: Any, **options: Any) -> requests.Response:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return super().send(*args, **(options | {"verify": False}))


def body_of(response: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield the body as it is sent: some servers send a .tar.gz with ``Content-Encoding: gzip``.

    Raises:
        UsageError: it is longer than ``limit`` bytes.
        urllib3.exceptions.HTTPError: the connection breaks off.
    """
    error = UsageError(f"{shown(response.url)}: sends more than the expected {limit} bytes", _HINT)
    if (content_length(response) or 0) > limit:
        raise error
    for data in response.raw.stream(_CHUNK, decode_content=False):
        limit -= len(data)
        if limit < 0:
            raise error
        yield data


def content_length(response: requests.Response) -> int | None:
    """Return the stated length of a body in bytes, or None. Raises MissingRequirement if it is no number."""
    stated = response.headers.get("Content-Length")
    if stated is None:
        return None
    if not (stated.isascii() and stated.isdigit() and len(stated) < 20):
        raise MissingRequirement(
            f"{shown(response.url)}: the server states the length {shown(stated)!r}", _HINT
        )
    return int(stated)


def shown(text: str) -> str:
    """Return what a server sent as it may be printed: short, without credentials or control characters."""
    with suppress(ValueError):
        text = without_credentials(text)
    return ascii(text[:500])[1:-1]


def _redirect_target(address: str, location: str) -> str:
    """Return the URL that a server redirects to. Raises UsageError unless it is one of a server."""
    try:
        target = without_credentials(requote_uri(urljoin(address, location)))
    except ValueError:
        target = ""
    if urlsplit(target).scheme not in ("http", "https"):
        raise UsageError(f"{shown(address)}: redirects to {shown(location)!r}, which is on no server", _HINT)
    return target


def _decoded(response: requests.Response, body: bytes, limit: int) -> bytes:
    """Return the content of a body, which some servers compress although they are not asked to."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return body
    try:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise UsageError(f"{shown(response.url)}: compressed as {shown(encoding)!r}", _HINT)
        content = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, limit + 1)
    except zlib.error as e:
        raise UsageError(f"{shown(response.url)}: damaged: {e}", _HINT) from e
    if len(content) > limit:
        raise UsageError(f"{shown(response.url)}: unpacks to more than the expected {limit} bytes", _HINT)
    return content


def without_credentials(url: str) -> str:
    """Return a URL without the user name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@cache  # a keyring may ask the user
def _from_keyring(url: str, user: str) -> str:
    """Return the password of a keyring as pip looks it up: first by URL, then by host."""
    for service in (url, urlsplit(url).netloc):
        done = run_command(["keyring", "get", service, user], 30.0)
        if done.code == 0 and done.stdout.strip():
            return done.stdout.rstrip("\r\n")
    return ""
