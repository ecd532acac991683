"""The page of the releases: the stack files and the patch series."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import Version

from reference.markdown import prose, table
from vimectl.patches import series
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.stacks.schema import Stack

HEADER = """\
# Releases

`vimectl stack show NAME` prints a stack with the source of each fact, and [Stack files](stack.md)
describes its keys. [Adding a release](../contributing/adding-a-release.md) describes how a release is added.
`make test-releases` applies, verifies and reverts all series below on the released sources.
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
            table(["stack", *VERSIONS, "CANN", "Python"], map(_versions, stacks)),
            "",
            "## Patches",
            "",
            "Releases whose patched files are byte for byte the same share a series.",
            "",
            table(["stack", "package", "release", "series", "patches"], _patches(tested)),
            "",
            "## Patches that a release does without",
            "",
            table(["package", "series", "patch", "why"], _unneeded(tested)),
            "",
        ]
    )


def _versions(stack: Stack) -> list[str]:
    found = [stack.packages.get(name, "") for name in VERSIONS]
    return [stack.name, *found, stack.cann or "", prose(stack.stack.python.replace(",", ", "))]


def _patches(stacks: list[Stack]) -> Iterator[list[str]]:
    for stack in stacks:
        for package, versions in sorted(stack.patches.items()):
            for version in versions:
                links = [
                    f"[{patch.id}](../../patches/{package}/{version}/{series.file_name(patch.id)})"
                    for patch in series.load(package, version).patches
                ]
                yield [stack.name, package, stack.packages[package], version, ", ".join(links)]


def _unneeded(stacks: list[Stack]) -> Iterator[list[str]]:
    used = {
        (package, version) for one in stacks for package, listed in one.patches.items() for version in listed
    }
    for package, version in sorted(used, key=lambda pair: (pair[0], Version(pair[1]))):
        for slug, reason in series.load(package, version).unneeded.items():
            yield [package, version, slug, prose(reason)]
