"""Send HTTP requests with pip's configuration: proxy, certificates, credentials.

Written with the standard library: pip's session is private to pip, and a client library would add half a
dozen packages to a tool that is installed into containers, for a GET with a range.
"""

from __future__ import annotations

import base64
import http.client
import netrc
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from vime_runtime.spec.errors import MissingRequirement

from vimectl import __version__
from vimectl.patches.releases.pip_config import PipConfig
from vimectl.util.host import run_command

_TRIES = 3
# Worth another try: too many requests, and temporary failures of a server or gateway.
_TEMPORARY = (429, 500, 502, 503, 504)
_PAUSE_SECONDS = 0.5
_CHUNK = 256 * 1024

UrlOrigin = tuple[str, str]  # scheme, host and port


class NotFound(Exception):
    """The server has nothing at this URL."""


class Web:
    """An HTTP client for the sources of one configuration."""

    def __init__(self, config: PipConfig) -> None:
        self._timeout = config.timeout
        handlers: list[urllib.request.BaseHandler] = [_Https(config), _Credentials(config)]
        if config.proxy:  # otherwise urllib uses that of the environment
            handlers.append(urllib.request.ProxyHandler(dict.fromkeys(("http", "https"), config.proxy)))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        """Return the response to a GET, with its body not yet read; redirects are followed.

        Raises:
            NotFound: 404 or 410.
            MissingRequirement: no connection, or the server refuses; temporary failures are retried first.
        """
        all_headers = {"User-Agent": f"vimectl/{__version__}", "Accept-Encoding": "identity"}
        all_headers |= headers or {}
        for left in reversed(range(_TRIES)):
            try:
                request = urllib.request.Request(without_credentials(url), headers=all_headers)
                response: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout)
                return response
            except urllib.error.HTTPError as e:
                e.close()
                if e.code in (404, 410):
                    raise NotFound(url) from e
                if e.code not in _TEMPORARY or not left:
                    raise _refused(url, e.code, e.reason) from e
            except (OSError, http.client.HTTPException) as e:  # URLError is an OSError
                refused = isinstance(getattr(e, "reason", None), ssl.SSLCertVerificationError)
                if refused or not left:
                    raise _unreachable(url, e) from e
            time.sleep(_PAUSE_SECONDS)
        raise AssertionError("unreachable")


def read_body(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the data received until the end or a broken connection; the caller checks the length."""
    with suppress(OSError, http.client.HTTPException):
        while data := response.read(_CHUNK):
            yield data


def without_credentials(url: str) -> str:
    """Return a URL without the user name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _refused(url: str, code: int, reason: str) -> MissingRequirement:
    hint = "check pip's configuration: pip config list"
    if code in (401, 403, 407):
        hint = "pip's configuration (pip config list) or ~/.netrc must have credentials for it"
    return MissingRequirement(f"{without_credentials(url)}: the server responded {code} {reason}", hint)


def _unreachable(url: str, error: Exception) -> MissingRequirement:
    reason = getattr(error, "reason", None) or error
    return MissingRequirement(
        f"{without_credentials(url)} cannot be reached: {reason}",
        "pip's configuration (pip config list) says which index is used; without an index, name a folder, "
        "wheel or source archive instead",
    )


class _Https(urllib.request.HTTPSHandler):
    """Check certificates with pip's authorities, except those of pip's trusted hosts."""

    def __init__(self, config: PipConfig) -> None:
        super().__init__()
        self._config = config

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        parts = urlsplit(request.full_url)
        trusted = bool({parts.hostname, parts.netloc} & set(self._config.trusted_hosts))
        context = _tls_context(self._config.cert, self._config.client_cert, trusted)
        return self.do_open(http.client.HTTPSConnection, request, context=context)


@cache
def _tls_context(cert: str | None, client_cert: str | None, trusted: bool) -> ssl.SSLContext:
    cert = cert or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    where: dict[str, Any] = {"capath" if Path(cert).is_dir() else "cafile": cert} if cert else {}
    try:
        context = ssl.create_default_context(**({} if trusted else where))
        if client_cert:
            context.load_cert_chain(client_cert)
    except OSError as e:
        raise MissingRequirement(
            f"a certificate of pip's configuration cannot be used: {e}",
            "check pip's configuration: pip config list",
        ) from e
    if trusted:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Credentials(urllib.request.BaseHandler):
    """Send the credentials of a source only to its own host, also after a redirect."""

    def __init__(self, config: PipConfig) -> None:
        self._known: dict[UrlOrigin, tuple[str, str]] = {}
        for url in (*config.indexes, *config.find_links):
            parts = urlsplit(url)
            if parts.username:
                user, password = unquote(parts.username), unquote(parts.password or "")
                if config.keyring and parts.password is None:
                    password = _from_keyring(without_credentials(url), user)
                self._known[_origin(url)] = user, password

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        pair = self._known.get(_origin(request.full_url)) or _from_netrc(request.full_url)
        if pair:
            token = base64.b64encode(":".join(pair).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        return request

    https_request = http_request


def _origin(url: str) -> UrlOrigin:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def _from_keyring(url: str, user: str) -> str:
    """Return the password of a keyring as pip looks it up: first by URL, then by host."""
    for service in (url, urlsplit(url).netloc):
        done = run_command(["keyring", "get", service, user], 30.0)
        if done.code == 0 and done.stdout.strip():
            return done.stdout.rstrip("\r\n")
    return ""


def _from_netrc(url: str) -> tuple[str, str] | None:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    with suppress(OSError, netrc.NetrcParseError):
        found: Any = netrc.netrc(path).authenticators(urlsplit(url).hostname or "")
        return (found[0], found[2]) if found else None
    return None
