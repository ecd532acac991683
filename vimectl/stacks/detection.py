"""Find the stack that is installed: an exact match, or the nearest stack with the differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vimectl.stacks.catalog import StackSummary, load_summary, stack_names
from vimectl.stacks.installed import InstalledDistribution, distributions
from vimectl.stacks.versions import Relation, distance, matches, relation, within
from vimectl.util.dist_info import canonical_name
from vimectl.util.host import Host

if TYPE_CHECKING:
    from vimectl.stacks.schema import Stack

# The packages that tell stacks apart. Consecutive stacks share the others.
_KEY_PACKAGES = ("vllm-ascend", "vllm")


@dataclass(frozen=True)
class PackageDifference:
    """A package that differs from the stack. ``found`` is None when it is not installed.

    ``relation`` compares the found version with the expected one; ``other`` means another build of the same
    release, a version that cannot be compared, or one outside the accepted range.
    """

    package: str
    found: str | None
    expected: str
    relation: Relation | Literal["absent"]


@dataclass(frozen=True)
class DetectedStack:
    """The nearest stack and the differences from it; ``stack`` is None when no package of any is there."""

    stack: str | None
    differences: tuple[PackageDifference, ...] = ()

    @property
    def exact(self) -> bool:
        return self.stack is not None and not self.differences


def detect_stack(host: Host) -> DetectedStack:
    """Return the stack that is installed on ``host``, or the nearest one with the differences."""
    installed = distributions(host)
    stacks = [load_summary(name) for name in stack_names()]
    if not any(find(stack, package, installed) for stack in stacks for package in stack.packages):
        return DetectedStack(None)
    nearest = min(stacks, key=lambda stack: _rank(stack, installed))
    return DetectedStack(nearest.name, tuple(differences(nearest, installed)))


def differences(
    stack: Stack | StackSummary, installed: dict[str, list[InstalledDistribution]]
) -> list[PackageDifference]:
    """Return the packages that are missing, at another version, or outside the accepted range.

    A package for which the stack only has a range may be absent.
    """
    found: list[PackageDifference] = []
    for package, wanted in stack.packages.items():
        have = find(stack, package, installed)
        if have is None:
            found.append(PackageDifference(package, None, wanted, "absent"))
        elif not matches(have.version, wanted):
            found.append(PackageDifference(package, have.version, wanted, relation(have.version, wanted)))
    for package, wanted in stack.ranges.items():
        have = find(stack, package, installed)
        if have and not within(have.version, wanted):
            found.append(PackageDifference(package, have.version, wanted, "other"))
    return found


def find(
    stack: Stack | StackSummary, package: str, installed: dict[str, list[InstalledDistribution]]
) -> InstalledDistribution | None:
    """Return the installed distribution that provides ``package`` in this stack, or None."""
    for name in stack.distributions(package):
        items = installed.get(canonical_name(name))
        if items:
            return items[0]
    return None


def _rank(stack: StackSummary, installed: dict[str, list[InstalledDistribution]]) -> tuple[object, ...]:
    """Return the sort key of a stack; the nearest stack has the smallest.

    In this order: the smallest part of its packages at another version or absent; the smallest part absent
    (so that a drifted installation is compared with a stack of its kind); closest vLLM version; fewest
    differences; a final release before a release candidate. Stacks name more or fewer packages, and share
    some, so the number of exact versions does not tell them apart.
    """
    differ = {d.package: d for d in differences(stack, installed)}
    own = [differ[package] for package in stack.packages if package in differ]
    absent = [d for d in own if d.found is None]
    apart = [
        distance(have.version, stack.packages[package])
        for package in _KEY_PACKAGES
        if package in stack.packages and (have := find(stack, package, installed))
    ]
    candidate = "rc" in stack.packages.get("vllm-ascend", "")
    count = len(stack.packages)
    return (len(own) / count, len(absent) / count, apart, len(differ), candidate)
