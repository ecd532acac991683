"""Do work as another user, in a child process; only root can."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class User(NamedTuple):
    """A user that need not have an account, with a home directory."""

    uid: int
    gid: int
    home: Path

    def become(self) -> None:
        os.setgroups([self.gid])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        os.umask(0o002)
        os.environ.update(HOME=str(self.home), XDG_STATE_HOME=str(self.home / "state"))

    def do(self, work: Callable[[], object]) -> str:
        """Return the text of what ``work`` returns or raises."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.become()
                answer = str(work())
            except Exception as e:
                hint = getattr(e, "hint", traceback.format_exc())
                answer = f"{type(e).__name__}: {e}; {hint}"
            with suppress(BaseException):
                os.write(write, answer.encode()[:60_000])
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            answer = pipe.read().decode()
        os.waitpid(child, 0)
        return answer

    @contextmanager
    def repeating(self, work: Callable[[], object]) -> Iterator[None]:
        """Repeat ``work`` while the body runs; its errors do not end it."""
        child = os.fork()
        if child == 0:
            self.become()
            while True:
                with suppress(OSError):
                    work()
        try:
            yield
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def give(user: User, *folders: Path) -> None:
    """Make everything below some folders the user's."""
    for folder in folders:
        folder.mkdir(exist_ok=True, parents=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
