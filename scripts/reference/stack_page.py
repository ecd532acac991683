"""The page of the keys of a stack file."""

from __future__ import annotations

from reference.key_list import key_sections
from vimectl.recipes.recipe_schema import all_keys
from vimectl.stacks.schema import Stack

HEADER = """\
# Stack files

A stack file is a TOML file with a set of versions that belong together, and the source of each fact.
`vimectl stack show NAME` prints one, and `vimectl stack new` writes one for a release of vllm-ascend. A
[project file](project-file.md) is a stack file that extends another one. `NAME` in a key stands for a
package or another name. An unknown key or a value of the wrong type is an error that names the key.

"""


def render() -> str:
    """Return the text of the page."""
    return HEADER + key_sections(all_keys(Stack))
