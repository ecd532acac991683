"""Run every patch command in a world of ``hostile_series`` within limits, and print what each one did.

    python -m harness.patches.patch_commands ROOT

The output is a JSON list with an object for each command: the exit code, what it printed, and the names of
files outside that changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import time
from pathlib import Path

from vimectl.cli import run_cli

MEMORY = 2 * 2**30


def commands(root: Path) -> list[list[str]]:
    """Return every command that reads or writes a series."""
    series, site, release = (str(root / name) for name in ("series", "site", "release"))
    chosen = ["--series", series, "--target", site]
    out = [str(root / f"out{number}") for number in range(5)]
    imported = ["--package", "toy", "--version", "1.0", "--against", release]
    ported = ["--from", "1.0", "--to", "2.0", "--source", release, "--source", str(root / "next")]
    return [
        ["lint", series],
        ["lint", series, "--against", release],
        ["list", "toy"],
        ["status", *chosen],
        ["diff", *chosen],
        ["apply", *chosen, "toy"],
        ["verify", *chosen, "toy"],
        ["revert", *chosen, "toy"],
        ["apply", "toy"],
        ["save", "own", "toy", "-m", "own", "--include", "toy/*"],
        ["drop", "0001-p", "toy"],
        ["revert", "toy"],
        ["import", series, *imported, "--out", out[0]],
        ["export", "--series", series, "--format", "quilt", "--out", out[1]],
        ["export", "--series", series, "--format", "mbox", "--out", out[2]],
        ["port", "toy", *ported, "--series", series, "--out", out[3]],
        ["lint", series, "--fix"],
        ["import", series, *imported, "--out", out[4]],
    ]


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return everything about the files below a folder, and the folder, that a change would change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[path.name] = status.st_ino, status.st_mode, status.st_mtime_ns, status.st_nlink, content
    return found


def main(root: Path) -> None:
    before = snapshot(root / "outside")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(root / "work")
    results = []
    for words in commands(root):
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
        start = time.monotonic()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run_cli(["patch", *words])
        printed.flush()
        text = printed.buffer.getvalue().decode("utf-8", "backslashreplace")
        after = snapshot(root / "outside")
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        seconds = round(time.monotonic() - start, 1)
        print(words[0], code, seconds, file=sys.stderr, flush=True)
        results.append({"words": words, "code": code, "text": text, "changed": changed, "seconds": seconds})
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
