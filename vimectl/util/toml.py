"""Read TOML files, as plain tables or checked by a pydantic model with errors that name the wrong keys.

pydantic is imported where it is used: its import takes longer than `vimectl patch status`, which reads TOML
without a model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vime_runtime.spec.errors import UsageError, nearest
from vime_runtime.spec.regular_files import read_regular

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")

# More than any stack, recipe or list of builds has; the parser takes a second for so much.
_MAX_BYTES = 2 * 2**20


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises UsageError naming the file and line when it is malformed or unreadable."""
    try:
        text = read_regular(path, _MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        raise UsageError(f"{path}: cannot be read: {reason}", "name a readable file in UTF-8") from e
    try:
        return parse(text)
    except ValueError as e:
        raise UsageError(f"{path}: not valid TOML: {e}", "correct the file") from e


def parse_value(text: str) -> Any:
    """Parse one TOML value, the part after ``key =``. Raises ValueError when it is not valid TOML."""
    return parse(f"value = {text}")["value"]


def parse(text: str) -> dict[str, Any]:
    """Parse TOML. Raises ValueError, also when it is nested too deeply or a number has too many digits."""
    try:
        return tomllib.loads(text)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def load(model: type[Model], path: Path) -> Model:
    """Read a TOML file into ``model``. Raises UsageError as ``read_toml`` and ``validate`` do."""
    return validate(model, read_toml(path), str(path))


def validate(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """Check ``data`` against ``model``. Raises UsageError that lists every wrong key, ``where`` first."""
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as e:
        lines = [_describe(model, error) for error in e.errors()]
        raise UsageError(f"{where}: " + "; ".join(lines)) from e


def _describe(model: type[BaseModel], error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}.{nearest(loc[-1], _known_keys(model, loc[:-1]))}"
    if error["type"] == "missing":
        return f"missing key {key!r}"
    return f"{key!r}: {error['msg']}, found {error['input']!r}"


def _known_keys(model: type[BaseModel], parents: list[str]) -> list[str]:
    from pydantic import BaseModel

    for part in parents:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]
