"""The page of the JSON documents: the keys of what each command prints with --json."""

from __future__ import annotations

from collections.abc import Iterator

from vime_runtime.spec.recipe import Recipe

from reference.command_list import PROGRAM, Command, commands
from reference.json_keys import Keys, document_keys, model_keys
from reference.markdown import code
from vimectl.stacks.schema import Stack

HEADER = """\
# JSON documents

With `--json` a command prints exactly one JSON document on standard output. Progress, logs and warnings
go to standard error. Every document has two keys first:

```json
{"schema": "vimectl.patch.status/1", "ok": true}
```

`schema` names the command and the version of the document. Keys are added without a new version, and none
is removed or changed without one. `ok` is true if the [exit code](exit-codes.md) is 0. After an error the
document has `error` instead of the keys below, an object with `kind`, `message` and `hint`.

A list below a key has the keys of the object, or of each object in the list, that is its value. Some keys
are only there with an option, such as `fixed` with `vimectl doctor --fix`.
"""
# Parts that other pages describe.
_DESCRIBED = {Stack: "the keys of a [stack file](stack.md)", Recipe: "the keys of a [recipe](recipe.md)"}


def render() -> str:
    """Return the text of the page."""
    shown = [one for one in commands() if one.function and not one.is_group]
    return HEADER + "".join(map(_section, shown))


def schema_name(command: Command) -> str:
    """Return the name in the key ``schema``: ``vimectl.patch.status/1``."""
    return f"{PROGRAM}.{'.'.join(command.name.split()[1:])}/1"


def _section(command: Command) -> str:
    assert command.function
    keys = document_keys(command.function)
    anchor = command.name.replace(" ", "-")
    listed = "\n".join(_lines(keys, 0))
    title = f"\n## {schema_name(command)} {{ #{anchor} }}\n"
    return f"{title}\n[{code(command.name)}](commands.md#{anchor})\n\n{listed}\n"


def _lines(keys: Keys, depth: int) -> Iterator[str]:
    """Yield a list: first the keys without keys on one line, then each key with those in it."""
    indent = " " * 4 * depth
    if single := [name for name, inner in keys.items() if not inner]:
        yield f"{indent}- {', '.join(map(code, single))}"
    for name, inner in keys.items():
        if inner:
            described = next((text for model, text in _DESCRIBED.items() if model_keys(model) == inner), "")
            yield f"{indent}- {code(name)}" + (f": {described}" if described else "")
            if not described:
                yield from _lines(inner, depth + 1)
