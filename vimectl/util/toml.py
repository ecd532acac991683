"""Read a TOML file into a pydantic model, with errors that name file, key and the nearest known keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from vime_runtime.spec.errors import UsageError, nearest

from vimectl.util.toml_file import parse_value, read_toml

__all__ = ["load", "parse_value", "read_toml", "validate"]

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """Check ``data`` against ``model``. Raises UsageError that lists every wrong key, ``where`` first."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        lines = [_describe(model, error) for error in e.errors()]
        raise UsageError(f"{where}: " + "; ".join(lines)) from e


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
