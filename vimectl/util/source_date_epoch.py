"""The moment that is written into files: now, or the one that SOURCE_DATE_EPOCH asks for.

Source: https://reproducible-builds.org/specs/source-date-epoch/
"""

from __future__ import annotations

import os
from datetime import datetime, timezone


def written() -> datetime:
    """Return the moment to write, in UTC and whole seconds."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given.isdecimal():
        return datetime.fromtimestamp(int(given), timezone.utc)
    return datetime.now(timezone.utc).replace(microsecond=0)
