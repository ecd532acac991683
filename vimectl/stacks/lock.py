"""Read a lock: requirements format, with one exact version and the digests of its files for each package.

A package may have one pin for each machine.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import UsageError

from vimectl.util.secrets import redact

_HINT = "write the lock with `uv pip compile --generate-hashes`"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# uv's comment below a pin: "# via NAME", or "# via" and one name in each following line.
_VIA = re.compile(r"\s+#\s+(?:via\s+)?([A-Za-z0-9][\w.-]*)$")


@dataclass(frozen=True)
class Pin:
    """One package of a lock. ``text`` is its requirement for pip, including the hashes.

    ``required_by`` are the packages that require it, from uv's ``# via`` comments if the lock has any.
    """

    name: str
    version: str
    hashes: frozenset[str]
    text: str
    required_by: tuple[str, ...] = ()


def read_lock(path: Path, machine: str | None = None) -> dict[str, Pin]:
    """Return the pins of a lock by canonical name.

    Args:
        machine: the machine to install for, as uname(1) names it; by default this one. A pin for another one
            has a marker such as ``; platform_machine == 'aarch64'``.

    Raises UsageError on a pin that is not exact and hashed.
    """
    environment = {"platform_machine": machine or platform.machine()}
    pins: dict[str, Pin] = {}
    joined = path.read_text(encoding="utf-8").replace("\\\n", " ")
    pin = None
    for line in joined.splitlines():
        if pin and (via := _VIA.match(line)) and via[1] != "via":
            pin = replace(pin, required_by=(*pin.required_by, via[1]))
            pins[pin.name] = pin
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pin = _pin(line, path, environment)
        if pin:
            pins[pin.name] = pin
    return pins


def _pin(line: str, path: Path, environment: dict[str, str]) -> Pin | None:
    hashes = frozenset(_HASH.findall(line))
    try:
        requirement = Requirement(line.split("--hash", 1)[0].strip())
    except InvalidRequirement as e:
        raise UsageError(f"{path}: not a requirement: {redact(line.strip())!r}", _HINT) from e
    exact = [s for s in requirement.specifier if s.operator == "=="]
    if len(exact) != 1 or not hashes:
        raise UsageError(f"{path}: {requirement.name} is not pinned to one version with hashes", _HINT)
    if requirement.marker and not requirement.marker.evaluate(environment):
        return None
    return Pin(canonicalize_name(requirement.name), exact[0].version, hashes, line)
