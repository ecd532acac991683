"""Search with atheris (libFuzzer) for a text that breaks the patch reader.

    python -m harness.patches.fuzz_patches [SECONDS] [libFuzzer's options]

What it must not find: an exception that is not the tool's own, more than a second for a few kilobytes, more
memory than libFuzzer allows (2 GiB), or a patch that is read and then breaks its comparison with a release.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # not in the locks: .venv/bin/pip install atheris

with atheris.instrument_imports(include=["vimectl.patches"]):
    from vimectl.patches.lint.file_checks import check_diff, check_mail_damage
    from vimectl.patches.lint.release_check import check_release
    from vimectl.patches.patchfile.apply import GitFile
    from vimectl.patches.patchfile.reader import parse
    from vimectl.patches.patchfile.rules import all_defects
    from vimectl.patches.release_files import PatchedRelease

from harness.patches.compare_with_git import Release
from harness.patches.hostile_patches import cases
from harness.patches.random_patches import pair

TREE = PatchedRelease(Release({"x": GitFile(b"a\nb\nc\n"), "toy/both.py": GitFile(b"a\nb\nc\nd\n")}))


def one(data: bytes) -> None:
    """Read and lint one text."""
    patch = parse(data)
    all_defects(patch)
    list(check_mail_damage(patch))
    for diff in patch.diffs:
        list(check_diff(diff))
    check_release(patch, TREE)


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
