"""Format bytes and seconds for people."""

from __future__ import annotations


def size(count: float) -> str:
    """Return bytes with a binary unit: ``size(3 * 1024**3) == "3.0 GiB"``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """Return seconds as a clock time: ``duration(75) == "1:15"``, ``duration(3675) == "1:01:15"``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
