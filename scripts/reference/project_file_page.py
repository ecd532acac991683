"""The page of the tables of a project file."""

from __future__ import annotations

from reference.markdown import entry, prose
from vimectl.recipes.recipe_schema import all_keys
from vimectl.stacks.catalog import PROJECT_FILE
from vimectl.stacks.schema import Stack

HEADER = """\
# The project file

`{file}` is a stack file that is found from the working directory upwards. [The
how-to](../how-to/project-file.md) shows one. It extends a stack and has what differs:

- A table is merged key by key with the one of the stack. Another value replaces that of the stack.
- A version in `[packages]` replaces the range of the package in `[ranges]`.
- An empty list in `[patches]` removes the patches on a package.
- A relative path is relative to the file.
- A fact that the file states needs no note of its source.

It can have every key below. [Stack files](stack.md) describes the keys inside the tables.

"""


def render() -> str:
    """Return the text of the page."""
    keys = [one for one in all_keys(Stack) if "." not in one.key]
    links = {one.key: f" [Keys](stack.md#{one.key})." if one.is_table else "" for one in keys}
    entries = [
        entry(one.key, [prose(one.description) + links[one.key], one.type + "\n    {: .facts }"])
        for one in keys
    ]
    return HEADER.format(file=PROJECT_FILE) + "\n".join(entries)
