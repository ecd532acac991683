"""What pip's output says went wrong when it was to fetch wheels that are known by their digests."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError

from vimectl.env.pip import files_taken
from vimectl.stacks.lock import Pin

_GOT = re.compile(r"Got\s+([0-9a-f]{64})")
_NOT_FOUND = re.compile(r"(?:No matching distribution found for|satisfies the requirement) ([\w.-]+)")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
# What pip says of each try to reach an index; without an answer it knows of no version either.
_BROKEN = re.compile(r"after connection broken by '(.*)': ")
_KNOWS_NONE = "(from versions: none)"
_HINT = (
    "give pip a source that has it: network access, or `pip config set global.find-links DIR` with the "
    "file in DIR"
)


def refusal(pins: Sequence[Pin], folder: Path, output: str) -> VimeError:
    """Return the error that tells why pip did not fetch ``pins`` into ``folder``."""
    what = f"{pins[0].name} {pins[0].version}" if len(pins) == 1 else f"{len(pins)} packages"
    # Not looked for beforehand: setuptools changes the process that looks for pip.
    if "No module named pip" in output:
        names = pins[0].name if len(pins) == 1 else what
        return MissingRequirement(f"{sys.executable} has no pip to fetch {names} with", "install pip there")
    if got := _GOT.search(output):
        taken = files_taken(output[: got.start()])
        pin = _of_file(pins, taken[-1]) if taken else pins[0]
        name = taken[-1] if taken else f"a file of {what}"
        return CheckFailed(f"found {name} sha256 {got[1]}, expected {_expected(pin)}", _HINT)
    if _NO_SPACE.search(output):
        mend = "free some space, or name a folder on another disk (the cache's: set XDG_CACHE_HOME=DIR)"
        return MissingRequirement(f"fetching {what}: no space left in {folder}", mend)
    absent, broken = _NOT_FOUND.search(output), _BROKEN.findall(output)
    if broken and (absent is None or _KNOWS_NONE in output):
        return MissingRequirement(
            f"fetching {what}: pip's index cannot be reached: {broken[-1]}",
            "mend the connection, then run the same command again: it goes on where it stopped",
        )
    if absent:
        pin = _named(pins, absent[1])
        return MissingRequirement(
            f"pip's sources offer no wheel of {pin.name} {pin.version} (sha256 {_expected(pin)})", _HINT
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return CheckFailed(f"fetching {what} failed: {last.strip()}", _HINT)


def _of_file(pins: Sequence[Pin], path: str) -> Pin:
    return _named(pins, path.rpartition("/")[2].partition("-")[0])


def _named(pins: Sequence[Pin], name: str) -> Pin:
    return next((pin for pin in pins if pin.name == canonicalize_name(name)), pins[0])


def _expected(pin: Pin) -> str:
    return " or ".join(sorted(pin.hashes))
