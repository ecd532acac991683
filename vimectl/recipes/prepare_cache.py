"""What ``[prepare]`` makes: one folder in the user's cache per kind and settings, made once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import psutil
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError
from vime_runtime.spec.recipe import PrepareTable, Recipe

from vimectl import __version__
from vimectl.recipes import download_cache
from vimectl.runs.progress import Progress
from vimectl.runs.run_log import Journal
from vimectl.runs.supervised_command import stop_requests, supervise


def folder(prepare: PrepareTable) -> Path:
    """The folder for these settings; another version of vimectl may make another thing of them."""
    asked = json.dumps([__version__, prepare.model_dump()], sort_keys=True)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("vimectl")) / "prepared" / f"{prepare.kind}-{digest}"


def needed(recipe: Recipe) -> PrepareTable | None:
    """The table when model or data come from it; somebody who brings both prepares nothing."""
    if recipe.prepare is None:
        return None
    place = str(folder(recipe.prepare))
    return recipe.prepare if place in recipe.model.path or place in recipe.data.path else None


def make(prepare: PrepareTable, environment: Mapping[str, str], progress: Progress) -> int:
    """Make the folder unless it is there already. It appears whole or not at all.

    Returns:
        the most memory it took, in bytes; 0 when it was there.

    Raises:
        UsageError: the kind or a setting is unknown or leads nowhere.
        CheckFailed: the preparation broke off; its last words are in the message.
        MissingRequirement: there is no space for it, or what it starts from cannot be fetched.
        KeyboardInterrupt: it was interrupted.
    """
    target = folder(prepare)
    if target.is_dir():
        return 0
    _remove_abandoned(target)
    making = target.with_name(f".{target.name}.{os.getpid()}")
    making.mkdir(parents=True)
    try:
        peak_bytes = _make(prepare, making, environment, progress)
        if not target.is_dir():  # another run may have made the same meanwhile
            making.rename(target)
        return peak_bytes
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _make(prepare: PrepareTable, making: Path, environment: Mapping[str, str], progress: Progress) -> int:
    command = [sys.executable, "-m", "vime_runtime.prepare", prepare.kind, str(making)]
    journal, errors = Journal(making), making / "stderr.log"

    def look() -> None:
        if journal.read():
            progress.update(journal)

    settings = prepare.settings
    if prepare.fetch:
        file = download_cache.bring(prepare.fetch, making / "fetched", making / "events.jsonl", look)
        settings = {key: _filled(value, file) for key, value in settings.items()}
    # Not in the run's own folder for temporary files: that is made when the run begins.
    temporary = making / "tmp"
    temporary.mkdir()
    with stop_requests() as requests:
        outcome = supervise(
            [*command, json.dumps(settings)],
            {**environment, "TMPDIR": str(temporary)},
            stdout=making / "events.jsonl",
            stderr=errors,
            look=look,
            requests=requests,
        )
    look()
    for used in (temporary, making / "fetched"):  # what was made of it is what stays
        shutil.rmtree(used, ignore_errors=True)
    if outcome.signal is not None:
        raise KeyboardInterrupt
    if outcome.code == 0:
        return outcome.peak_bytes
    if journal.error:
        kind = MissingRequirement if outcome.code == MissingRequirement.exit_code else UsageError
        raise kind(journal.error["message"], journal.error["hint"])
    last = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise CheckFailed(f"preparing {prepare.kind} ended with exit code {outcome.code}: {''.join(last)}")


def _filled(value: Any, file: Path) -> Any:
    return value.replace("{fetched}", str(file)) if isinstance(value, str) else value


def _remove_abandoned(target: Path) -> None:
    """Remove half-made folders whose maker was killed before it could."""
    for making in target.parent.glob(f".{target.name}.*"):
        if not psutil.pid_exists(int(making.name.rpartition(".")[2])):
            shutil.rmtree(making, ignore_errors=True)
