"""Read a TOML file into a pydantic model, with errors that name file, key and the nearest known keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vimectl.errors import BadInput, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every schema: unknown keys are errors, values are not coerced across types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises BadInput naming the file and line when it is malformed or unreadable."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise BadInput(f"{path}: not valid TOML: {e}", "correct the file") from e
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"{path}: cannot be read: {e}") from e
    return document


def parse_value(text: str) -> Any:
    """Read one TOML value, as it would stand after ``key =``. Raises ValueError when it is none."""
    return tomllib.loads(f"value = {text}")["value"]


def validate(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """Check ``data`` against ``model``. Raises BadInput that lists every wrong key, ``where`` first."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        lines = [_describe(model, error) for error in e.errors()]
        raise BadInput(f"{where}: " + "; ".join(lines)) from e


def load(model: type[Model], path: Path) -> Model:
    """Read and check one TOML file."""
    return validate(model, read_toml(path), str(path))


def _describe(model: type[BaseModel], error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}.{nearest(loc[-1], _siblings(model, loc[:-1]))}"
    if error["type"] == "missing":
        return f"missing key {key!r}"
    return f"{key!r}: {error['msg']}, found {error['input']!r}"


def _siblings(model: type[BaseModel], parents: list[str]) -> list[str]:
    for part in parents:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]
