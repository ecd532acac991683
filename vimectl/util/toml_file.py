"""Read a TOML file as plain tables. What they must contain is checked in ``toml``, which is slow to start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises UsageError naming the file and line when it is malformed or unreadable."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"{path}: not valid TOML: {e}", "correct the file") from e
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: cannot be read: {e}") from e
    return document


def parse_value(text: str) -> Any:
    """Read one TOML value, as it would stand after ``key =``. Raises ValueError when it is none."""
    return tomllib.loads(f"value = {text}")["value"]
