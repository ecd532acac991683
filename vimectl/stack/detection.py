"""Which stack is installed: the one whose packages are all there, or the nearest with the differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from packaging.utils import canonicalize_name

from vimectl.host import Host
from vimectl.stack.catalog import names
from vimectl.stack.installed import Installed, distributions
from vimectl.stack.outline import load
from vimectl.stack.versions import matches


class Versions(Protocol):
    """What is compared of a stack: an outline has it, and the whole stack."""

    @property
    def packages(self) -> Mapping[str, str]: ...

    def distributions(self, package: str) -> list[str]: ...


@dataclass(frozen=True)
class Difference:
    """A package that is not as the stack has it. ``found`` is None when it is absent."""

    package: str
    found: str | None
    expected: str


@dataclass(frozen=True)
class Detection:
    """The nearest stack and what differs from it; ``stack`` is None when nothing of any is installed."""

    stack: str | None
    differences: tuple[Difference, ...] = ()

    @property
    def exact(self) -> bool:
        return self.stack is not None and not self.differences


def detect(host: Host) -> Detection:
    """Return the stack that is installed on ``host``, or the nearest one with the differences."""
    installed = distributions(host)
    compared = {name: differences(load(name), installed) for name in names()}

    # Nearest: the most packages at the right version; of equals, the one with most of its packages
    # there at all, so that a drifted install is compared with its own kind.
    def rank(name: str) -> tuple[int, int]:
        total = len(load(name).packages)
        absent = sum(d.found is None for d in compared[name])
        return total - len(compared[name]), total - absent

    best = max(names(), key=rank)
    if rank(best)[1] == 0:
        return Detection(None)
    return Detection(best, tuple(compared[best]))


def differences(stack: Versions, installed: dict[str, list[Installed]]) -> list[Difference]:
    """Compare what is installed with a stack: packages that are missing or at another version."""
    found: list[Difference] = []
    for package, wanted in stack.packages.items():
        have = find(stack, package, installed)
        if have is None or not matches(have.version, wanted):
            found.append(Difference(package, have.version if have else None, wanted))
    return found


def find(stack: Versions, package: str, installed: dict[str, list[Installed]]) -> Installed | None:
    """Return the installed distribution that provides ``package`` in this stack, or None."""
    for name in stack.distributions(package):
        items = installed.get(canonicalize_name(name))
        if items:
            return items[0]
    return None
