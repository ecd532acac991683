"""Which stack is installed: the one whose packages are all there, or the nearest with the differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from packaging.utils import canonicalize_name

from vimectl.stacks.catalog import names
from vimectl.stacks.installed import Installed, distributions
from vimectl.stacks.outline import load
from vimectl.stacks.versions import Relation, distance, matches, relation, within
from vimectl.util.host import Host

# What a stack is named after. Its other packages are shared by several stacks in a row.
_NAMING = ("vllm-ascend", "vllm")


class Versions(Protocol):
    """What is compared of a stack: an outline has it, and the whole stack."""

    @property
    def packages(self) -> Mapping[str, str]: ...

    @property
    def ranges(self) -> Mapping[str, str]: ...

    def distributions(self, package: str) -> list[str]: ...


@dataclass(frozen=True)
class Difference:
    """A package that is not as the stack has it. ``found`` is None when it is absent.

    ``relation`` is how what was found stands to what was expected; ``other`` is another build of the same
    release, a version that cannot be compared, or one outside a range.
    """

    package: str
    found: str | None
    expected: str
    relation: Relation | Literal["absent"]


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
    stacks = [load(name) for name in names()]
    if not any(find(stack, package, installed) for stack in stacks for package in stack.packages):
        return Detection(None)
    nearest = min(stacks, key=lambda stack: _rank(stack, installed))
    return Detection(nearest.name, tuple(differences(nearest, installed)))


def differences(stack: Versions, installed: dict[str, list[Installed]]) -> list[Difference]:
    """Compare what is installed with a stack: packages that are missing, at another version or out of range.

    A package that the stack gives a range for is no difference when absent: the others ask for it.
    """
    found: list[Difference] = []
    for package, wanted in stack.packages.items():
        have = find(stack, package, installed)
        if have is None:
            found.append(Difference(package, None, wanted, "absent"))
        elif not matches(have.version, wanted):
            found.append(Difference(package, have.version, wanted, relation(have.version, wanted)))
    for package, wanted in stack.ranges.items():
        have = find(stack, package, installed)
        if have and not within(have.version, wanted):
            found.append(Difference(package, have.version, wanted, "other"))
    return found


def find(stack: Versions, package: str, installed: dict[str, list[Installed]]) -> Installed | None:
    """Return the installed distribution that provides ``package`` in this stack, or None."""
    for name in stack.distributions(package):
        items = installed.get(canonicalize_name(name))
        if items:
            return items[0]
    return None


def _rank(stack: Versions, installed: dict[str, list[Installed]]) -> tuple[object, ...]:
    """What sorts the nearest stack first.

    The most packages at the right version; of equals, the one with most of its packages there at all, so
    that a drifted install is compared with its own kind; then the one whose vLLM is the closest, then the
    fewest differences, and at last a final release before a candidate.
    """
    differ = {d.package: d for d in differences(stack, installed)}
    own = [differ[package] for package in stack.packages if package in differ]
    there = [d for d in own if d.found is None]
    apart = [
        distance(have.version, stack.packages[package])
        for package in _NAMING
        if package in stack.packages and (have := find(stack, package, installed))
    ]
    candidate = "rc" in stack.packages.get("vllm-ascend", "")
    return (len(own) - len(stack.packages), len(there) - len(stack.packages), apart, len(differ), candidate)
