"""Read from pip's configuration where it looks for packages, and how it reaches them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

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


@dataclass(frozen=True)
class PipConfig:
    """Those options of `pip download` that say which file it takes, from where and how, under pip's names."""

    index_url: str = ""
    extra_index_urls: Sequence[str] = ()
    no_index: bool = False
    find_links: Sequence[str] = ()
    proxy: str | None = None
    cert: str | None = None
    client_cert: str | None = None
    trusted_hosts: Sequence[str] = ()
    keyring_provider: str = "auto"
    timeout: float = 15.0
    constraints: Sequence[str] = ()
    cache_dir: str | None = None

    @property
    def indexes(self) -> list[str]:
        """Return the URLs of the indexes, with the credentials in them."""
        return [] if self.no_index else [url for url in (self.index_url, *self.extra_index_urls) if url]


def read() -> PipConfig:
    """Read the configuration of this interpreter's pip: system, user and environment files, and PIP_*.

    Raises:
        MissingRequirement: this interpreter has no pip.
        CheckFailed: pip fails to read its configuration.
    """
    # In a subprocess, without even a find_spec here: setuptools changes the process that looks for pip.
    names = [field.name for field in fields(PipConfig)]
    done = run_command([sys.executable, "-c", _PRINT_OPTIONS, *names], 60.0)
    if "No module named 'pip'" in done.stderr:
        raise MissingRequirement(
            f"{sys.executable} has no pip; its configuration names the sources of releases",
            "install pip there, or name a folder, wheel or source archive instead",
        )
    if done.code:
        raise CheckFailed(f"pip cannot read its configuration: {done.stderr.strip()}", "pip config list")
    return PipConfig(**json.loads(done.stdout))
