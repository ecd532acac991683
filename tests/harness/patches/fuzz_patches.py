"""Let atheris look for a text that the reader does not survive.

    python -m harness.patches.fuzz_patches [SECONDS] [libFuzzer's options]

What it must not find: an exception that is not the tool's own, more than a second for a few kilobytes, more
memory than libFuzzer allows (2 GiB), or a patch that is read and then breaks what applies it.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris  # not in the locks: .venv/bin/pip install atheris

with atheris.instrument_imports(include=["vimectl.patches"]):
    from vime_runtime.spec.errors import UsageError

    from vimectl.patches.lint import layout, mail
    from vimectl.patches.patchfile import parse, strict, tree
    from vimectl.patches.patchfile.tree import File

from harness.patches.hostile_patches import cases
from harness.patches.random_patches import pair

TREE = {"x": File(b"a\nb\nc\n"), "toy/both.py": File(b"a\nb\nc\nd\n")}


def one(data: bytes) -> None:
    """Read, judge and apply one text."""
    patch = parse(data)
    strict.defects(patch)
    list(mail.check(data, patch))
    for diff in patch.diffs:
        list(layout.check(diff))
    with suppress(UsageError):
        tree.apply(patch.diffs, TREE.get)


def main() -> None:
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        seeds = [case.patch for case in cases()] + [pair(seed)[0] for seed in range(200)]
        for number, patch in enumerate(seeds):
            if len(patch) < 10_000:
                Path(corpus, str(number)).write_bytes(patch)
        options = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=1", *sys.argv[2:], corpus]
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
