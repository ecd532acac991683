"""Write a stack as one file that needs no other file of this machine: for an image, or for another node."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vimectl.stacks.catalog import is_series_directory, is_stack_path, lineage, load_summary, stack_file
from vimectl.stacks.schema import Stack


def standalone_text(stack: Stack, place: Callable[[str, str], str], without: Iterable[str] = ()) -> bytes:
    """Return the text of a stack file: a file that extends another, or has series in directories, in full.

    Args:
        place: returns, for a package and the directory of a series on it, the directory to write instead.
        without: tables to leave out.
    """
    if not stack.extends and not any(is_series_directory(entry) for _, entry in stack.series):
        return stack_file(stack.argument).read_bytes()
    import tomlkit  # only for projects

    data = stack.model_dump(mode="json", exclude_none=True, exclude={"extends", "patches", *without})
    shipped = lineage(stack.argument)[-1]
    if not is_stack_path(shipped):
        # Its lock and its recipes are also those of the project.
        data["extends"] = shipped
        data["patches"] = {package: [] for package in load_summary(shipped).patches}
    for package, entry in stack.series:
        entry = place(package, entry) if is_series_directory(entry) else entry
        data.setdefault("patches", {}).setdefault(package, []).append(entry)
    return tomlkit.dumps(data).encode()
