"""Compare versions, including the local, post and development suffixes of torch and vllm-ascend builds.

packaging is imported where it is used: that takes 4 ms, and equal versions do not need it.
"""

from __future__ import annotations

from typing import Literal

Relation = Literal["same", "older", "newer", "other"]


def matches(installed: str, wanted: str) -> bool:
    """Return True when ``installed`` is the version ``wanted``.

    PEP 440's ``==``: a local suffix (``2.10.0+cpu``) counts only when the wanted version states one;
    post, pre and development suffixes always count. Versions outside PEP 440 must be equal as text.
    """
    if installed == wanted:
        return True
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(f"=={wanted}").contains(installed, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False


def within(installed: str, specifier: str) -> bool:
    """Return True when ``installed`` is a valid version in a range such as ``>=2.47.1,<=2.48.0``."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(specifier).contains(installed, prereleases=True)
    except InvalidVersion:
        return False


def relation(installed: str, wanted: str) -> Relation:
    """Return how ``installed`` compares with ``wanted`` in PEP 440's order.

    ``other``: the same release in another build (a local suffix that differs), or not comparable.

    >>> relation("9.1.RC1", "9.1.0"), relation("0.22.1rc1.dev263+g967c5c3bc", "0.22.1rc1")
    ('older', 'older')
    >>> relation("2.10.0.post4", "2.10.0"), relation("2.9.0.post1", "2.9.0.post1+git4c901a4")
    ('newer', 'other')
    """
    if matches(installed, wanted):
        return "same"
    from packaging.version import InvalidVersion, Version

    try:
        # Without the local suffix, which identifies a build and has no order.
        have, want = Version(Version(installed).public), Version(Version(wanted).public)
    except InvalidVersion:
        return "other"
    if have == want:
        return "other"
    return "older" if have < want else "newer"


def distance(installed: str, wanted: str) -> tuple[int, ...]:
    """Return the distance of two versions by release component, the major one first, to find the nearest.

    >>> distance("0.24.0rc1", "0.23.0") < distance("0.24.0rc1", "0.30.0rc2")
    True
    """
    from packaging.version import InvalidVersion, Version

    try:
        have, want = Version(installed), Version(wanted)
    except InvalidVersion:
        return () if installed == wanted else (10**6,)
    parts = [(*version.release, 0, 0, 0)[:3] for version in (have, want)]
    apart = [abs(a - b) for a, b in zip(*parts, strict=True)]
    return (*apart, int(have.public != want.public))
