"""Keep what is typed, the ``^C`` above all, from being printed into a view that is redrawn in place."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager

LFLAG = 3  # termios.tcgetattr: [iflag, oflag, cflag, lflag, ...]


@contextmanager
def unseen() -> Iterator[None]:
    """Turn the terminal's echo off for the block. Keys keep their meaning; Ctrl-C still interrupts."""
    if not _ours():
        yield
        return
    before = termios.tcgetattr(0)
    quiet = list(before)
    quiet[LFLAG] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        if _ours():
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _ours() -> bool:
    """Whether this process may change the terminal: one in the background would be stopped for trying."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # a terminal that is not the one this session is at
        return False
