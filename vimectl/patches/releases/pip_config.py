"""Read from pip's configuration where it looks for packages, and how it reaches them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.util.host import run_command

# pip itself merges its files, environment variables and defaults. `pip config list` prints no defaults, and
# not which value applies.
_PRINT_OPTIONS = """
import json, sys
from pip._internal.commands import create_command
options, _ = create_command("download").parse_args([])
print(json.dumps({name: getattr(options, name, None) for name in sys.argv[1:]}))
"""
_NAMES = (
    *("index_url", "extra_index_urls", "no_index", "find_links", "proxy", "cert", "client_cert"),
    *("trusted_hosts", "keyring_provider", "timeout", "cache_dir"),
)


@dataclass(frozen=True)
class PipConfig:
    """The part of pip's configuration that is about finding and fetching a file.

    ``indexes`` and ``find_links`` are as configured, with credentials in the URLs. ``cache`` is the folder
    of pip's own cache; None when it is disabled. ``keyring``: missing passwords are read from the `keyring`
    command. ``timeout`` is in seconds.
    """

    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    proxy: str | None = None
    cert: str | None = None
    client_cert: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    keyring: bool = False
    timeout: float = 15.0  # pip's own
    cache: Path | None = None


def read() -> PipConfig:
    """Read the configuration of this interpreter's pip: system, user and environment files, and PIP_*.

    Raises:
        MissingRequirement: this interpreter has no pip.
        CheckFailed: pip fails to read its configuration.
    """
    # In a subprocess, without even a find_spec here: setuptools changes the process that looks for pip.
    done = run_command([sys.executable, "-c", _PRINT_OPTIONS, *_NAMES], 60.0)
    if "No module named 'pip'" in done.stderr:
        raise MissingRequirement(
            f"{sys.executable} has no pip; its configuration names the sources of releases",
            "install pip there, or name a folder, wheel or source archive instead",
        )
    if done.code:
        raise CheckFailed(f"pip cannot read its configuration: {done.stderr.strip()}", "pip config list")
    options = json.loads(done.stdout)
    indexes = (options["index_url"], *options["extra_index_urls"])
    return PipConfig(
        indexes=() if options["no_index"] else indexes,
        find_links=tuple(options["find_links"]),
        proxy=options["proxy"] or None,
        cert=options["cert"],
        client_cert=options["client_cert"],
        trusted_hosts=tuple(options["trusted_hosts"]),
        # The default, "auto", uses a keyring only if pip could also prompt for a password.
        keyring=options["keyring_provider"] in ("import", "subprocess"),
        timeout=float(options["timeout"]),
        cache=Path(options["cache_dir"]) if options["cache_dir"] else None,
    )
