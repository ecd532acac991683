"""Find the data directories (patches, recipes, docker): in the checkout, or inside the installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def data_dir(name: str) -> Path:
    """Return the directory ``patches``, ``recipes`` or ``docker`` of this copy of vimectl.

    Raises:
        FileNotFoundError: the installation is broken; user input cannot cause this.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"vimectl's data directory {name!r} is missing next to {_PACKAGE}")


def checkout_root() -> Path | None:
    """Return the root of the source checkout this copy runs from, or None when installed from a wheel."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "runtime").is_dir() else None
