"""Version comparison with the suffixes that this field really uses."""

from __future__ import annotations

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion


def matches(installed: str, wanted: str) -> bool:
    """Whether ``installed`` is the version ``wanted``.

    PEP 440's ``==``: a local suffix (``2.10.0+cpu``) counts only when the wanted version states one;
    post, pre and development suffixes always count. Versions outside PEP 440 must be equal as text.
    """
    try:
        return SpecifierSet(f"=={wanted}").contains(installed, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return installed == wanted
