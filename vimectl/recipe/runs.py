"""Which runs there are, and which one a name or a path means."""

from __future__ import annotations

from pathlib import Path

from vimectl.errors import unknown

# What the launcher writes first into a run directory; a folder without it is none.
RUN_FILE = "resolved.json"


def kept_in(folder: Path) -> dict[str, Path]:
    """The run directories directly in ``folder``, by name, oldest first."""
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{RUN_FILE}"), key=_created)}


def find(name_or_path: str, folder: Path = Path("runs")) -> Path:
    """Return the run directory that is meant: a path, a name in ``folder``, or ``last`` for the newest there.

    Raises:
        BadInput: there is no such run; the nearest names are given.
    """
    if (Path(name_or_path) / RUN_FILE).is_file():
        return Path(name_or_path).absolute()
    known = kept_in(folder)
    if name_or_path == "last" and known:
        return list(known.values())[-1].absolute()
    if name_or_path not in known:
        raise unknown("run", name_or_path, known, hint=_hint(folder, known))
    return known[name_or_path].absolute()


def _created(run_file: Path) -> float:
    return run_file.stat().st_mtime


def _hint(folder: Path, known: dict[str, Path]) -> str:
    if not known:
        return f"there are no runs in {folder.absolute()}; give the path of a run directory"
    return f"runs in {folder}: {', '.join(known)}; a path of a run directory is fine too"
