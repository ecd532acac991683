"""The page of the JSON documents: the keys of what each command prints with --json."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from vime_runtime.spec.recipe import Recipe

from reference.command_list import PROGRAM, Command, commands
from reference.json_keys import Keys, document_keys, model_keys
from reference.markdown import code, prose
from vimectl.stacks.schema import Stack
from vimectl.util.toml import read_toml

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
# What the keys mean. A name is the end of a path: the command, then the keys from the outermost one on; * is
# any command. The longest name counts.
MEANINGS = read_toml(Path(__file__).with_name("json_meanings.toml"))
# A part with this many keys is listed once: where a part that has all of them is outermost.
_REPEATED = 4


class Part(NamedTuple):
    """A key of a document.

    Attributes:
        path: the key and those around it, outermost first.
        keys: the keys in its value.
    """

    command: Command
    path: tuple[str, ...]
    keys: Keys

    @property
    def meaning(self) -> str:
        """The name in MEANINGS, "" if it has none."""
        words = (self.command.name.removeprefix(f"{PROGRAM} "), *self.path)
        names = ["/".join(words[start:]) for start in range(len(self.path))]
        if len(self.path) == 1:
            names.append(f"*/{self.path[0]}")
        return next(filter(MEANINGS.__contains__, names), "")


def render() -> str:
    """Return the text of the page."""
    return HEADER + "".join(_section(command, listed) for command, listed in entries())


def schema_name(command: Command) -> str:
    """Return the name in the key ``schema``: ``vimectl.patch.status/1``."""
    return f"{PROGRAM}.{'.'.join(command.name.split()[1:])}/1"


def entries() -> Iterator[tuple[Command, list[tuple[Part, str]]]]:
    """Yield every command with the keys that the page lists.

    With each key is the place where the keys in its value are listed, "" if that is below it.
    """
    documents = [
        list(_parts(one, document_keys(one.function), ()))
        for one in commands()
        if one.function and not one.is_group
    ]
    outermost = sorted(chain(*documents), key=lambda part: len(part.path))
    for document in documents:
        yield document[0].command, list(_listed(document, outermost))


def _parts(command: Command, keys: Keys, above: tuple[str, ...]) -> Iterator[Part]:
    for name, inner in keys.items():
        yield Part(command, (*above, name), inner)
        if not _described(inner):
            yield from _parts(command, inner, (*above, name))


def _described(keys: Keys) -> str:
    return next((text for model, text in _DESCRIBED.items() if model_keys(model) == keys), "")


def _listed(document: list[Part], outermost: list[Part]) -> Iterator[tuple[Part, str]]:
    elsewhere: tuple[str, ...] | None = None
    for part in document:
        if elsewhere is None or part.path[: len(elsewhere)] != elsewhere:
            place = _described(part.keys) or _place(part, outermost)
            elsewhere = part.path if place else None
            yield part, place


def _place(part: Part, outermost: list[Part]) -> str:
    if len(part.keys) < _REPEATED:
        return ""
    home = next(other for other in outermost if other.keys.items() >= part.keys.items())
    if home is part:
        return ""
    return f"the keys of {code('.'.join(home.path))} of [{code(home.command.name)}](#{_anchor(home.command)})"


def _anchor(command: Command) -> str:
    return command.name.replace(" ", "-")


def _section(command: Command, listed: list[tuple[Part, str]]) -> str:
    anchor = _anchor(command)
    title = f"\n## {schema_name(command)} {{ #{anchor} }}\n"
    lines = "".join(_line(*one) for one in listed)
    return f"{title}\n[{code(command.name)}](commands.md#{anchor})\n\n{lines}"


def _line(part: Part, place: str) -> str:
    meaning = "; ".join(filter(None, [prose(MEANINGS.get(part.meaning, "")), place]))
    return f"{'    ' * (len(part.path) - 1)}- {code(part.path[-1])}: {meaning}\n"
