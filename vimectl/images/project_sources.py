"""Put a project into an image: its stack file without paths of this machine, and its series as archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from vimectl.patches import series
from vimectl.stacks.schema import Stack
from vimectl.stacks.standalone import standalone_text


def stack_text(stack: Stack) -> bytes:
    """Return the text of the stack file in an image.

    A file that extends another, or has series in directories, is written out in full: each series is at
    ``patches/NAME`` next to it, and there are no targets, as the packages are those of the image.
    """
    return standalone_text(
        stack,
        lambda package, directory: f"patches/{_archive_name(stack, package, directory)}",
        without=["targets"],
    )


def pack_series(stack: Stack, package: str, directory: str) -> tuple[str, bytes]:
    """Return the name and the content of an archive of a series, the same for the same files.

    Raises UsageError when the series is not valid.
    """
    series.read(Path(directory))
    name = _archive_name(stack, package, directory)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in sorted(Path(directory).rglob("*")):
            relative = file.relative_to(directory)
            if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                content = file.read_bytes()
                member = tarfile.TarInfo(f"{name}/{relative.as_posix()}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return name, packed.getvalue()


def _archive_name(stack: Stack, package: str, directory: str) -> str:
    return f"{package}-{stack.patches[package].index(directory) + 1}"
