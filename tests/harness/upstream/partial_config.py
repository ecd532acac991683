"""Configurations as far as what is under test reads them."""

from __future__ import annotations

from typing import Any


class Settings:
    """A configuration in which every value that is not given is None."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
