"""Check and record a library that was built here from the source that a stack pins."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.spec.errors import CheckFailed

from vimectl.env.memory_saver.known_builds import record_build
from vimectl.env.memory_saver.verify import SaverBuild, verify_path
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

# The directory of the package in its repository, as docker/Dockerfile.npu builds it.
FOLDER = "contrib/torch_memory_saver/python"


def check_built(path: Path, stack: Stack, host: Host) -> list[SaverBuild]:
    """Return the libraries at a path: a wheel, or the directory that it is installed in.

    The digest of such a build is not known in advance, so it has to be for the right backend and machine.

    Raises:
        CheckFailed: it was built for another backend or machine, or is known to be bad.
    """
    source = stack.memory_saver
    assert source is not None
    builds = verify_path(path, host, stack)
    for build in builds:
        if build.verdict not in ("known-good", "unknown") or build.backend == "unknown":
            raise CheckFailed(
                f"{build.path}: {build.verdict}: {build.note or 'not linked with an accelerator runtime'}",
                f"build it with CANN from {source.url} at {source.commit}",
            )
    return builds


def record_built(
    builds: list[SaverBuild], stack: Stack, by: str, into: Path | None = None, at: str = ""
) -> None:
    """Record libraries that ``check_built`` returned as known-good; the rest as ``record_build``."""
    source = stack.memory_saver
    assert source is not None
    note = f"built by {by} from {source.url} at {source.commit} (tag {source.tag})"
    record_build(builds, note, into, by, at)
