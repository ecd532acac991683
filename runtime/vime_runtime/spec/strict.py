"""The base class of every schema."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen pydantic model that rejects unknown keys and does not convert between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
