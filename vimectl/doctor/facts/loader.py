"""Find shared libraries as the dynamic loader does: LD_LIBRARY_PATH, /etc/ld.so.conf, and its defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vimectl.util.host import Host

_CONFIG = "/etc/ld.so.conf"
READS = ("$LD_LIBRARY_PATH", "/etc", f"{_CONFIG}*", "/lib", "/usr", "/usr/lib", "*.so")
# ld.so(8); Debian and Ubuntu add the directories of the architecture.
_DEFAULT = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_DEFAULT_PATTERNS = ("/lib/*-linux-gnu", "/usr/lib/*-linux-gnu")


def read_library_directories(host: Host) -> tuple[str, ...]:
    """Return the directories in which the loader searches, in its order.

    The directories of /etc/ld.so.conf count even if the cache of ldconfig is older.
    """
    given = re.split(r"[:;]", host.environment.get("LD_LIBRARY_PATH", ""))
    multiarch = [path for pattern in _DEFAULT_PATTERNS for path in host.glob(pattern)]
    found = [*filter(None, given), *_configured(host, _CONFIG, set()), *multiarch, *_DEFAULT]
    return tuple(dict.fromkeys(path.rstrip("/") or "/" for path in found))


def find_library(host: Host, name: str) -> str:
    """Return the path of the library that the loader finds first; empty for none."""
    paths = (f"{directory}/{name}" for directory in read_library_directories(host))
    return next(filter(host.is_file, paths), "")


def is_preloadable(host: Host, path: str) -> bool:
    """Return True if a path of LD_PRELOAD exists, with any value of the loader's tokens, ld.so(8).

    ``$LIB`` is the name of the library directory and ``$PLATFORM`` that of the processor. ``$ORIGIN`` is the
    directory of each program, so nothing is known about it.
    """
    text = re.sub(r"\$\{(\w+)\}", r"$\1", path)
    if "$ORIGIN" in text:
        return True
    patterns = [
        text.replace("$LIB", name).replace("$PLATFORM", "*") for name in ("lib64", "lib", "lib/*-linux-gnu")
    ]
    return host.exists(path) or ("$" in text and any(host.glob(pattern) for pattern in patterns))


def is_same_file(host: Host, one: str, other: str) -> bool:
    """Return True if two paths lead to one existing file or directory."""
    first, second = host.status(one), host.status(other)
    if first is None or second is None:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _configured(host: Host, path: str, read: set[str]) -> Iterator[str]:
    """Yield the directories of a configuration file of ldconfig(8) and of those that it includes."""
    read.add(path)
    for line in (host.read(path) or "").splitlines():
        text = line.partition("#")[0].strip()
        word, _, rest = text.partition(" ")
        if word == "include":
            for pattern in rest.split():
                absolute = pattern if pattern.startswith("/") else f"{path.rpartition('/')[0]}/{pattern}"
                for file in host.glob(absolute):
                    if file not in read:
                        yield from _configured(host, file, read)
        elif word != "hwcap":
            yield from filter(lambda entry: entry.startswith("/"), re.split(r"[\s:,]+", text))
