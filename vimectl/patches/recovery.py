"""Finish or take back what an interrupted command left in a target directory, and say which."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vime_runtime.spec.errors import VimeError

from vimectl.patches import journal as journals
from vimectl.patches.applied_state import folder
from vimectl.patches.journal import discard, pending


def recover(location: Path) -> str | None:
    """Return what was done with what an interrupted change left; None when nothing was left.

    Waits for a change that is under way. A folder that only a dead lock is left in goes without a word.

    Raises:
        CheckFailed: a file was edited since, naming where both of its contents are; or the journal is not
            one to execute.
        MissingRequirement: the file system refused; the next command tries again.
    """
    if not pending(location):
        _remove_dead_lock(location)
        return None
    # Imported here: hardly ever is anything left, and every command looks.
    from vimectl.patches import file_replacement
    from vimectl.patches.lock import locked

    journal = journals.read(location)
    roots = journal.roots if journal else (location,)
    with locked([*roots, location]):
        if not pending(location):
            return None  # it was not left behind: its owner has finished it meanwhile
        journal = journals.read(location)
        if journal is None:
            discard((location,))
            return f"{location}: an interrupted change had not begun; its preparation was removed"
        agreeing = {root for root in journal.roots if journals.means(journal, root)}
        file_replacement.move(journal, agreeing)
        discard([root for root in journal.roots if root in agreeing])
    how = "finished" if journal.forward else "taken back"
    return f"{location}: an interrupted {journal.action} was {how}"


def _remove_dead_lock(location: Path) -> None:
    if not folder(location).is_dir():
        return
    from vimectl.patches.lock import locked

    with suppress(OSError, VimeError):
        names = os.listdir(folder(location))
        if not names or "lock" in names:
            with locked([location], wait=0):
                pass
