"""Hand pip's configuration over to uv, which does not read it.

    python -m vimectl.env.uv [OPTION]... -r FILE

runs `uv pip install` for this interpreter's environment. It needs no third-party package but uv, because the
Makefile installs the others with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from uv import find_uv_bin
from vime_runtime.spec.errors import VimeError

from vimectl.releases import pip_config
from vimectl.releases.pip_config import PipConfig


def uv_environment(config: PipConfig) -> dict[str, str]:
    """Return the variables that make uv use the sources and the network settings of pip.

    A variable of uv's own that the user has set stays. Source: uv's reference of environment variables.
    """
    links = [_link(link) for link in config.find_links if "://" in link or Path(link).exists()]
    given = {
        "UV_DEFAULT_INDEX": config.index_url,
        "UV_INDEX": " ".join(config.extra_index_urls),
        # pip prefers no index over another. By default uv takes a package from the first that has its name.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": ",".join(links),
        "UV_CONSTRAINT": " ".join(map(_link, config.constraints)),
        "UV_INSECURE_HOST": " ".join(config.trusted_hosts),
        # uv has no other provider; pip's "auto" asks one only after a login was refused.
        "UV_KEYRING_PROVIDER": "subprocess" if config.keyring_provider == "subprocess" else "",
        "UV_HTTP_TIMEOUT": str(round(config.timeout)),
        "UV_NO_CACHE": "" if config.cache_dir else "1",
        "UV_SYSTEM_CERTS": "1",
        "SSL_CERT_FILE": config.cert or "",
        "SSL_CLIENT_CERT": config.client_cert or "",
        "ALL_PROXY": config.proxy or "",
        "HTTP_PROXY": config.proxy or "",
        "HTTPS_PROXY": config.proxy or "",
    }
    set_by_user = {name for name in os.environ if name.startswith("UV_")}
    found = {name: value for name, value in given.items() if value and name not in set_by_user}
    return found | {"UV_NO_VERIFY_HASHES": "false"}


def install_options(python: Path, config: PipConfig) -> list[str]:
    """Return uv's arguments to install a lock into the environment of ``python``, without its requirements.

    uv checks every digest that a requirement has. The configuration files of uv are not read, since those of
    the working directory would count too.
    """
    options = ["--no-config", "--no-deps", "--python", str(python)]
    return ["pip", "install", *options, *(["--no-index"] if config.no_index else [])]


def _link(location: str) -> str:
    """Return a URL as it is, and a path as a URL without the characters that separate list items."""
    return location if "://" in location else Path(location).absolute().as_uri().replace(",", "%2C")


def main(arguments: list[str]) -> None:
    """Become `uv pip install` for this interpreter. Raises SystemExit when pip's configuration is wrong."""
    try:
        config = pip_config.read()
    except VimeError as e:
        sys.exit(f"{e.message}\nhint: {e.hint}")
    uv = find_uv_bin()
    command = [uv, *install_options(Path(sys.executable), config), *arguments]
    os.execve(uv, command, os.environ | uv_environment(config))  # nosec B606 # a list of arguments, without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
