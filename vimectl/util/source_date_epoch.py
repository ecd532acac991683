"""The timestamp to write into files: SOURCE_DATE_EPOCH when it is set, the current time otherwise.

Source: https://reproducible-builds.org/specs/source-date-epoch/
"""

from __future__ import annotations

import os
from datetime import datetime, timezone

from vime_runtime.spec.errors import UsageError

_NAME = "SOURCE_DATE_EPOCH"


def now() -> datetime:
    """Return the time to write, in UTC and whole seconds. An invalid SOURCE_DATE_EPOCH is ignored."""
    value = os.environ.get(_NAME, "")
    if value.isdecimal():
        return datetime.fromtimestamp(int(value), timezone.utc)
    return datetime.now(timezone.utc).replace(microsecond=0)


def seconds() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds, None when it is unset. Raises UsageError when it is invalid."""
    value = os.environ.get(_NAME)
    if value is None:
        return None
    if not value.isdecimal():
        raise UsageError(
            f"{_NAME} is {value!r}", "set it to seconds since 1970, for example: git log -1 --format=%ct"
        )
    return int(value)
