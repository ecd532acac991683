"""Write docs/matrix.md from the stack files and the series.

    python scripts/matrix.py [--check]

With --check nothing is written; the exit code is 1 if the file is not current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vimectl.patches import series  # noqa: E402
from vimectl.stacks.catalog import load_stack, stack_names  # noqa: E402
from vimectl.stacks.schema import Stack  # noqa: E402

MATRIX = ROOT / "docs" / "matrix.md"
HEADER = """\
# Releases

Written by `scripts/matrix.py` from `vimectl/stacks/data/` and `patches/`; do not edit it.
[adding-a-release.md](adding-a-release.md) describes how a release is added. `vimectl stack show NAME` prints
a stack with the source of each fact. `make test-releases` applies, verifies and reverts all series below on
the released sources.
"""
VERSIONS = ("vllm-ascend", "vllm", "torch", "torch-npu", "triton-ascend")


def render() -> str:
    """Return the text of the page."""
    stacks = [load_stack(name) for name in stack_names()]
    stacks.sort(key=lambda one: Version(one.packages.get("vllm-ascend", "0")), reverse=True)
    tested = [one for one in stacks if one.tested]
    return "\n".join(
        [
            HEADER,
            "## Versions",
            "",
            *_table(["stack", *VERSIONS, "CANN", "Python"], map(_versions, stacks)),
            "",
            "## Patches",
            "",
            "Releases whose patched files are byte for byte the same share a series.",
            "",
            *_table(["stack", "package", "release", "series", "patches"], _patches(tested)),
            "",
            "## Patches that a release does without",
            "",
            *_table(["package", "series", "patch", "why"], _unneeded(tested)),
            "",
        ]
    )


def _versions(stack: Stack) -> list[str]:
    found = [stack.packages.get(name, "") for name in VERSIONS]
    return [stack.name, *found, stack.cann or "", stack.stack.python.replace(",", ", ")]


def _patches(stacks: list[Stack]) -> Iterator[list[str]]:
    for stack in stacks:
        for package, versions in sorted(stack.patches.items()):
            for version in versions:
                links = [
                    f"[{patch.id}](../patches/{package}/{version}/{series.file_name(patch.id)})"
                    for patch in series.load(package, version).patches
                ]
                yield [stack.name, package, stack.packages[package], version, ", ".join(links)]


def _unneeded(stacks: list[Stack]) -> Iterator[list[str]]:
    used = {
        (package, version) for one in stacks for package, listed in one.patches.items() for version in listed
    }
    for package, version in sorted(used, key=lambda pair: (pair[0], Version(pair[1]))):
        for slug, reason in series.load(package, version).unneeded.items():
            yield [package, version, slug, reason]


def _table(columns: list[str], rows: Iterator[list[str]] | map[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def main() -> int:
    text = render()
    if "--check" not in sys.argv[1:]:
        MATRIX.write_text(text, encoding="utf-8")
        return 0
    if MATRIX.is_file() and MATRIX.read_text(encoding="utf-8") == text:
        return 0
    print(f"{MATRIX} is not current\nhint: python scripts/matrix.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
