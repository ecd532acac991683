"""The page of the commands."""

from __future__ import annotations

from collections.abc import Iterator

from reference.command_list import Command, Parameter, commands, global_options
from reference.markdown import code, entry, prose

HEADER = """\
# Commands

Every command has `--help`. [JSON documents](json.md) describes what `--json` prints, and
[Exit codes](exit-codes.md) what a script can tell from a code.

## vimectl

```console
$ vimectl [OPTIONS] COMMAND ...
```

Every command has these options, before and after its name:
"""


def render() -> str:
    """Return the text of the page."""
    shared, alone = global_options()
    parts = [HEADER, *_parameters("vimectl", shared), "\n`vimectl` alone has these:\n"]
    parts += _parameters("vimectl", alone)
    for command in commands():
        parts += _section(command)
    return "\n".join(parts) + "\n"


def anchor(command: Command) -> str:
    """Return the anchor of a command on the page: ``vimectl-patch-apply``."""
    return command.name.replace(" ", "-")


def option_anchor(name: str, parameter: Parameter) -> str:
    """Return the anchor of a parameter of a command: ``vimectl-doctor-stack``."""
    return f"{name.replace(' ', '-')}-{max(parameter.names, key=len).lstrip('-').lower()}"


def _section(command: Command) -> Iterator[str]:
    level = "##" if command.is_group or command.name.count(" ") == 1 else "###"
    yield f"\n{level} {command.name} {{ #{anchor(command)} }}\n"
    yield prose(command.summary) + "\n"
    for text in command.details:
        yield prose(text) + "\n"
    if command.is_group and not command.arguments:
        return
    yield f"```text\n{command.usage}\n```\n"
    yield from _parameters(command.name, command.arguments)
    yield from _parameters(command.name, command.options)
    if command.examples:
        examples = "\n".join(command.examples)
        yield f"Example{'s'[: len(command.examples) - 1]}:\n\n```sh\n{examples}\n```\n"
    if command.exit_codes:
        meanings = [f"{code(str(number))} {prose(text)}" for number, text in command.exit_codes.items()]
        yield f"Exit codes: {'; '.join(meanings)}.\n{{: .facts }}\n"


def _parameters(command: str, parameters: tuple[Parameter, ...]) -> Iterator[str]:
    for one in parameters:
        anchor = option_anchor(command, one)
        names = ", ".join(f"{name} {one.value}".rstrip() for name in one.names)
        yield entry(anchor, [_meaning(one)], names)


def _meaning(parameter: Parameter) -> str:
    facts = [
        "Required." if parameter.required else "",
        f"One of {', '.join(map(code, parameter.choices))}." if parameter.choices else "",
        f"Default: {code(parameter.default)}." if parameter.default else "",
        "Can be given several times." if parameter.repeatable else "",
        f"Environment variable: {code(parameter.variable)}." if parameter.variable else "",
    ]
    return " ".join([prose(parameter.help), *filter(None, facts)])
