"""Identify one boot of one kernel."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """Return the id of this boot, random(4). Containers of one host have the same; other hosts do not.

    The host name and address are no substitute: a container may have others than its host.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
