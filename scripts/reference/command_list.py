"""The commands of vimectl as data: the source of the page of the commands and of the man page."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vimectl.cli.tree import command_tree

PROGRAM = "vimectl"
# Metavars of Typer, and the usual ones.
_TYPES = {"str": "TEXT", "int": "N", "path": "PATH"}


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command.

    Attributes:
        names: "-n", "--dry-run" of an option; the metavar of an argument, without brackets and dots.
        value: the metavar of an option's value, "" of a switch and of an argument.
        help: what the help says of it, without the default.
        default: as text; "" without one.
        choices: the values that are accepted; empty if any is.
        variable: the environment variable that is the default, or "".
    """

    names: tuple[str, ...]
    value: str
    help: str
    default: str
    choices: tuple[str, ...]
    variable: str
    required: bool
    repeatable: bool


@dataclass(frozen=True)
class Command:
    """A command, or a group of commands.

    Attributes:
        name: with the group, as it is typed: "vimectl patch apply".
        usage: the name with its options and arguments, on one line.
        summary: the first paragraph of the help, on one line.
        details: the other paragraphs.
        options: without the global ones, which every command has.
        examples: command lines, each with what it does as a comment.
        exit_codes: what each exit code means.
        function: the function that Typer calls; of a group its callback, if it has one.
    """

    name: str
    usage: str
    summary: str
    details: tuple[str, ...]
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    examples: tuple[str, ...]
    exit_codes: Mapping[int, str]
    is_group: bool
    function: Callable[..., Any] | None


def commands() -> list[Command]:
    """Return every command and group that the help shows, each group before its commands."""
    tree = command_tree()
    context = _context(tree, PROGRAM, None)
    return list(_below(tree, context, {tuple(one.opts) for one in tree.params}))


def global_options() -> tuple[tuple[Parameter, ...], tuple[Parameter, ...]]:
    """Return the options that every command has, and those that only the program alone has."""
    tree = command_tree()
    context = _context(tree, PROGRAM, None)
    everywhere = {name for command in tree.commands.values() for one in command.params for name in one.opts}
    shown = [one for one in tree.params if not one.hidden]
    shared = [one for one in shown if everywhere.intersection(one.opts)]
    alone = [one for one in shown if one not in shared]
    return tuple(_parameter(one, context) for one in shared), tuple(_parameter(one, context) for one in alone)


def _below(group: Any, context: Any, known: set[tuple[str, ...]]) -> Iterator[Command]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        inner = _context(command, name, context)
        yield _command(command, inner, known)
        if hasattr(command, "list_commands"):
            yield from _below(command, inner, known)


def _context(command: Any, name: str, parent: Any) -> Any:
    return command.context_class(command, info_name=name, parent=parent)


def _command(command: Any, context: Any, known: set[tuple[str, ...]]) -> Command:
    summary, *details = _paragraphs(command.help)
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    options = [one for one in shown if one.param_type_name == "option" and tuple(one.opts) not in known]
    arguments = tuple(_parameter(one, context) for one in shown if one.param_type_name == "argument")
    is_group = hasattr(command, "list_commands")
    words = ["COMMAND ..."] if is_group else [_in_usage(one) for one in arguments]
    return Command(
        name=context.command_path,
        usage=" ".join([context.command_path, *(["[OPTIONS]"] if options else []), *words]),
        summary=summary,
        details=tuple(details),
        arguments=arguments,
        options=tuple(_parameter(one, context) for one in options),
        examples=command.epilog.examples if command.epilog else (),
        exit_codes=command.epilog.exit_codes if command.epilog else {},
        is_group=is_group,
        function=command.callback,
    )


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n")]


def _in_usage(argument: Parameter) -> str:
    word = argument.names[0] + ("..." if argument.repeatable else "")
    return word if argument.required else f"[{word}]"


def _parameter(parameter: Any, context: Any) -> Parameter:
    is_option = parameter.param_type_name == "option"
    # Releases of Typer differ in the brackets that they add.
    metavar = (parameter.metavar or parameter.make_metavar(context)).strip("[]{}<>.")
    if metavar in _TYPES or metavar == parameter.name:
        metavar = _TYPES.get(metavar, metavar.upper())
    takes_value = is_option and not parameter.is_flag and not parameter.count
    return Parameter(
        names=(*parameter.opts, *parameter.secondary_opts) if is_option else (metavar,),
        value=metavar if takes_value else "",
        help=" ".join((parameter.help or "").split()),
        default=_default_text(parameter, context),
        choices=tuple(map(str, getattr(parameter.type, "choices", ()))),
        variable=parameter.envvar or "",
        required=parameter.required,
        repeatable=getattr(parameter, "multiple", False) or parameter.nargs == -1,
    )


def _default_text(parameter: Any, context: Any) -> str:
    """Return a default as it is typed; a list as words."""
    value = parameter.get_default(context)
    if value is None or value is False or not parameter.show_default:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return str(value.value if isinstance(value, Enum) else value)
