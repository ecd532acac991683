"""Remove what the NPU path must do, one text at a time, and see that a test fails.

    python scripts/npu_removals.py [ITEM...]

For each removal of vimectl/runs/npu_path.toml the tests of its item run. It is done in the checkout and
undone whatever happens: a copy would escape tests whose children find the packages where they are installed.
A removal counts as noticed when a test fails, not when tests were skipped or none ran.
Exit code: 0 every removal was noticed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vimectl.runs import npu_path
from vimectl.runs.npu_path import Item, Removal

ROOT = Path(__file__).resolve().parents[1]
# Of pytest: some test failed. Anything else is no answer: interrupted, internal error, usage, none found.
FAILED = 1


def main(argv: list[str]) -> int:
    """Try the removals of the named items, or of all."""
    items = [item for item in npu_path.path().item if not argv[1:] or item.id in argv[1:]]
    unnoticed = 0
    for item in items:
        if not item.removal:
            print(f"{item.id}: nothing to remove: {item.pinned}")
        for removal in item.removal:
            seen = _try(item, removal)
            unnoticed += not seen.startswith("noticed")
            print(f"{item.id}: {removal.file}: {removal.text.strip()!r}: {seen}", flush=True)
    return int(unnoticed > 0)


def _try(item: Item, removal: Removal) -> str:
    file = ROOT / removal.file
    text = file.read_text(encoding="utf-8")
    if text.count(removal.text) != 1:
        return f"not tried: the text is there {text.count(removal.text)} times"
    file.write_text(text.replace(removal.text, removal.instead), encoding="utf-8")
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "--no-header",
                *item.tests,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    finally:
        file.write_text(text, encoding="utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode != FAILED or not failed:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        return f"NOT NOTICED (pytest exit code {done.returncode}): {' '.join(last)}"
    return f"noticed by {failed[0].partition('::')[2].partition(' ')[0]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
