"""A file on a server, whole in the user's cache: resumed where it was cut off, checked by digest."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.patches.releases.index import File
from vimectl.patches.releases.web import Web, body

_CHUNK = 256 * 1024
_TRIES = 5
# The strongest first; an index states SHA-256, the others are older ones.
_ALGORITHMS = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")

# Name of the file, bytes that have come, bytes in all (None: the server does not say).
Report = Callable[[str, int, "int | None"], None]


def whole(file: File, folder: Path, web: Web, report: Report) -> Path:
    """Return the file in ``folder``, fetched unless it is there and has the digest that its source states.

    Of two processes that want it one fetches and the other waits. A file whose source states no digest is
    kept with the digest that it had when it came.

    Raises:
        CheckFailed: what the source gives has another digest than it states.
        MissingRequirement: the connection fails, or the disk is full.
    """
    with _room(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            path = folder / file.name
            if not (path.is_file() and _mismatch(path, file.hashes or _noted(path)) is None):
                path.unlink(missing_ok=True)
                _fetch(file, path, web, report)
            return path


def intact(path: Path, hashes: dict[str, str]) -> bool:
    """Whether a file has the digest that is stated; without a stated one nothing can be said, so False."""
    return bool(hashes) and path.is_file() and _mismatch(path, hashes) is None


def verified(path: Path, file: File) -> Path:
    """Return ``path``. Raises CheckFailed when it has another digest than its source states."""
    mismatch = _mismatch(path, file.hashes)
    if mismatch:
        raise CheckFailed(
            f"{path}: found {mismatch}", "remove the file, and look at where it comes from: pip config list"
        )
    return path


def _fetch(file: File, path: Path, web: Web, report: Report) -> None:
    part = path.with_name(f"{path.name}.part")
    resumed = part.exists() and part.stat().st_size > 0
    _receive(file, part, web, report)
    mismatch = _mismatch(part, file.hashes)
    if mismatch and resumed:  # the first half may be of another file
        part.unlink()
        _receive(file, part, web, report)
        mismatch = _mismatch(part, file.hashes)
    if mismatch:
        part.unlink()
        raise CheckFailed(
            f"{file.name}: found {mismatch}",
            "the index and the file do not agree: look at pip's configuration (pip config list)",
        )
    if not file.hashes:
        _note(path).write_text(_digest(part, "sha256"), encoding="utf-8")
    os.replace(part, path)


def _receive(file: File, part: Path, web: Web, report: Report) -> None:
    """Append to ``part`` until it is whole, asking again where an answer was cut short."""
    for _ in range(_TRIES):
        have = part.stat().st_size if part.exists() else 0
        if have and have == file.size:
            return
        with web.get(file.url, {"Range": f"bytes={have}-"} if have else {}) as answer:
            follows = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if not (answer.status == 206 and follows):
                have = 0  # the server sends all of it
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            with part.open("ab" if have else "wb") as out:
                for data in body(answer):
                    out.write(data)
                    have += len(data)
                    report(file.name, have, total)
        if total in (None, have):
            return
    raise MissingRequirement(
        f"{file.name}: the connection breaks off", "the same command goes on where it stopped"
    )


def _mismatch(path: Path, hashes: dict[str, str]) -> str | None:
    """Say what digest was found and what is stated; None when they agree or none is stated."""
    for algorithm in _ALGORITHMS:
        if algorithm in hashes:
            found, stated = _digest(path, algorithm), hashes[algorithm].lower()
            return None if found == stated else f"{algorithm} {found}, expected {stated}"
    return None


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _noted(path: Path) -> dict[str, str]:
    try:
        return {"sha256": _note(path).read_text(encoding="utf-8").strip()}
    except OSError:
        return {"sha256": "not noted"}


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space left" if full else f"cannot be written: {e.strerror}"
        raise MissingRequirement(
            f"{folder}: {what}", "set XDG_CACHE_HOME=DIR to have the cache elsewhere"
        ) from e
