"""Send HTTP requests as pip does: with its proxy, certificates, trusted hosts and credentials."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from vime_runtime.spec.errors import MissingRequirement

from vimectl import __version__
from vimectl.patches.releases.pip_config import PipConfig
from vimectl.util.host import run_command

# Temporary failures of a server or gateway, and too many requests.
_TEMPORARY = (429, 500, 502, 503, 504)
_BACKOFF_SECONDS = 0.5
_HINT = "check pip's configuration (pip config list)"


class NotFound(MissingRequirement):
    """The server has nothing at this URL."""


class NoRanges(MissingRequirement):
    """The server does not send parts of this file."""


class Web:
    """An HTTP client for the sources of one configuration.

    Credentials are those of pip's URLs, of pip's keyring, or of ~/.netrc. Each is sent to its own host only.
    Proxies and authorities of the environment are used where pip's configuration has none.
    """

    def __init__(self, config: PipConfig) -> None:
        proxies = config.proxy and {"http": config.proxy, "https": config.proxy}
        self._options: dict[str, Any] = {"timeout": config.timeout, "verify": config.cert}
        self._options |= {"cert": config.client_cert, "proxies": proxies}
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": f"vimectl/{__version__}", "Accept-Encoding": "identity"})
        retry = urllib3.Retry(
            2,
            backoff_factor=_BACKOFF_SECONDS,
            status_forcelist=_TEMPORARY,
            raise_on_status=False,
            respect_retry_after_header=False,  # it may be an hour
        )
        self._session.mount("http://", HTTPAdapter(max_retries=retry))
        self._session.mount("https://", _SystemAuthorities(max_retries=retry))
        for host in config.trusted_hosts:
            for prefix in (f"https://{host}/", f"https://{host}:"):
                self._session.mount(prefix, _Unverified(max_retries=retry))
        # By scheme and host.
        self._credentials: dict[tuple[str, ...], tuple[str, str]] = {}
        for url in (*config.indexes, *config.find_links):
            parts = urlsplit(url)
            if parts.username:
                user, password = unquote(parts.username), unquote(parts.password or "")
                if parts.password is None and config.keyring_provider in ("import", "subprocess"):
                    password = _from_keyring(without_credentials(url), user)
                self._credentials[urlsplit(without_credentials(url))[:2]] = user, password

    def get(self, url: str, headers: dict[str, str] | None = None) -> requests.Response:
        """Return the response to a GET, with its body not yet read; redirects are followed.

        Raises:
            NotFound: 404 or 410.
            MissingRequirement: no connection, or the server refuses; temporary failures are retried first.
        """
        address = without_credentials(url)
        auth = self._credentials.get(urlsplit(address)[:2])
        try:
            response = self._session.get(address, headers=headers, auth=auth, stream=True, **self._options)
        except OSError as e:  # RequestException is one; so is a certificate that cannot be read
            reason = getattr(e.args[0], "reason", e) if e.args else e
            raise MissingRequirement(
                f"{address} cannot be reached: {reason}",
                f"{_HINT}; without an index, name a folder, wheel or source archive instead",
            ) from e
        if response.ok:
            return response
        response.close()
        if response.status_code in (404, 410):
            raise NotFound(f"{address}: not found", _HINT)
        hint = f"{_HINT}, or ~/.netrc, for its credentials" if response.status_code in (401, 403) else _HINT
        raise MissingRequirement(
            f"{address}: the server responded {response.status_code} {response.reason}", hint
        )

    def read(self, url: str, headers: dict[str, str], part: bool = False) -> requests.Response:
        """Return a response with its body. One that breaks off is requested again.

        Raises NoRanges when it is to be a part of the file and is not, otherwise as ``get``.
        """
        for _ in range(3):
            with self.get(url, headers) as response:
                if part and response.status_code != 206:
                    raise NoRanges(f"{without_credentials(url)}: parts of it are not sent", "try again")
                with suppress(requests.RequestException):
                    if len(response.content) >= int(response.headers.get("Content-Length", 0)):
                        return response
        raise MissingRequirement(f"{without_credentials(url)}: the connection breaks off", "try again")


class _SystemAuthorities(HTTPAdapter):
    """Accept the certificate authorities of the system too, as pip does."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=ssl.create_default_context(), **options)


class _Unverified(HTTPAdapter):
    """Accept any certificate, of the hosts that pip trusts."""

    def send(self, *args: Any, **options: Any) -> requests.Response:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return super().send(*args, **(options | {"verify": False}))


def without_credentials(url: str) -> str:
    """Return a URL without the user name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _from_keyring(url: str, user: str) -> str:
    """Return the password of a keyring as pip looks it up: first by URL, then by host."""
    for service in (url, urlsplit(url).netloc):
        done = run_command(["keyring", "get", service, user], 30.0)
        if done.code == 0 and done.stdout.strip():
            return done.stdout.rstrip("\r\n")
    return ""
