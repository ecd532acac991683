"""Select paths with ``--include`` and ``--exclude``, as `git apply` does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple


class PathRule(NamedTuple):
    """An ``--include`` or ``--exclude`` of a pattern."""

    include: bool
    glob: str


def is_included(path: str, rules: Sequence[PathRule]) -> bool:
    """Return True if git's rules include a path: the first rule that matches counts.

    ``*`` matches slashes too. What no rule matches is included unless there is an ``--include``.
    """
    for rule in rules:
        # Python's patterns have no backslashes and no ^.
        if fnmatchcase(path, re.sub(r"\\(.)", r"[\1]", rule.glob).replace("[^", "[!")):
            return rule.include
    return not any(rule.include for rule in rules)
