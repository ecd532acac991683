"""Put a project into an image: its stack file without paths of this machine, and its series as archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from vimectl.patches import series
from vimectl.stacks.catalog import is_series_directory, is_stack_path, lineage, load_summary, stack_file
from vimectl.stacks.schema import Stack


def stack_text(stack: Stack) -> bytes:
    """Return the text of the stack file in an image.

    A file that extends another, or has series in directories, is written out in full: each series is at
    ``patches/NAME`` next to it, and there are no targets, as the packages are those of the image.
    """
    if not stack.extends and not any(is_series_directory(entry) for _, entry in stack.series):
        return stack_file(stack.argument).read_bytes()
    import tomlkit  # only for projects

    data = stack.model_dump(exclude_none=True, exclude={"targets", "extends", "patches"})
    shipped = lineage(stack.argument)[-1]
    if not is_stack_path(shipped):
        # Its lock and its recipes are also those of the project.
        data["extends"] = shipped
        data["patches"] = {package: [] for package in load_summary(shipped).patches}
    for package, entry in stack.series:
        is_directory = is_series_directory(entry)
        place = f"patches/{_archive_name(stack, package, entry)}" if is_directory else entry
        data.setdefault("patches", {}).setdefault(package, []).append(place)
    return tomlkit.dumps(data).encode()


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
