"""Write the man page of vimectl from its commands: ``python -m scripts.man_page > docs/vimectl.1``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from scripts.reference.command_list import PROGRAM, Command, Parameter, commands, global_options
from vimectl.cli.tree import command_tree
from vimectl.stacks.catalog import PROJECT_FILE
from vimectl.util.toml import read_toml

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
# Variables that no option has.
VARIABLES = {
    "VIMECTL_STACK": "The stack where no option names one. It beats the project file.",
    "NO_COLOR": "Print without colors.",
    "SOURCE_DATE_EPOCH": "The time of all files of an image, see vimectl image build.",
}


def main() -> None:
    """Print the page."""
    print("\n".join(page()))


def page() -> Iterator[str]:
    """Yield the lines of the page, in man(7)."""
    root = command_tree()
    summary = " ".join((root.help or "").split())
    yield f'.TH {PROGRAM.upper()} 1 "" "{PROGRAM}" "User Commands"'
    yield from [".SH NAME", rf"{PROGRAM} \- {_text(summary[0].lower() + summary[1:].rstrip('.'))}"]
    yield from [".SH SYNOPSIS", f".B {PROGRAM}", r"[\fIOPTIONS\fR] \fICOMMAND\fR ..."]
    home = read_toml(PROJECT)["project"]["urls"]["Documentation"]
    yield from [".SH DESCRIPTION", _text(summary), ".PP", f"The documentation is at {_text(home)}."]
    yield from [".SH OPTIONS", "Every command takes these options, before and after its name."]
    yield from [".TP", r"\fB\-h\fR, \fB\-\-help\fR", "Show the help of the command."]
    shared, alone = global_options()
    for option in shared:
        yield from _parameter(option)
    yield from [".PP", f"{PROGRAM} alone takes these:"]
    for option in alone:
        yield from _parameter(option)
    yield ".SH COMMANDS"
    for command in commands():
        yield from _command(command)
    yield ".SH ENVIRONMENT"
    variables = {one.variable: one.help for command in commands() for one in command.options if one.variable}
    for name, meaning in (VARIABLES | variables).items():
        yield from [".TP", rf"\fB{name}\fR", _text(meaning)]
    yield from [".SH FILES", ".TP", rf"\fI{PROJECT_FILE}\fR"]
    yield "The project file, found from the working directory upwards."
    yield ".SH EXIT STATUS"
    for code, meaning in root.epilog.exit_codes.items():
        yield from [".TP", rf"\fB{code}\fR", _text(meaning)]
    yield ".SH EXAMPLES"
    yield from _examples(root.epilog.examples)


def _command(command: Command) -> Iterator[str]:
    yield f".SS {_text(command.name)}"
    if command.usage != command.name and not command.is_group:
        yield from [rf"\fB{_text(command.usage)}\fR", ".PP"]
    yield _text(command.summary)
    for paragraph in command.details:
        yield from [".PP", _text(paragraph)]
    if command.is_group:
        return
    for parameter in (*command.arguments, *command.options):
        yield from _parameter(parameter)
    if command.examples:
        yield from [".PP", "Examples:", ".PP"]
        yield from _examples(command.examples)


def _parameter(one: Parameter) -> Iterator[str]:
    value = rf" \fI{_text('|'.join(one.choices) or one.value)}\fR" if one.value else ""
    names = ", ".join(rf"\fB{_text(name)}\fR" for name in sorted(one.names, key=len))
    facts = [one.help, f"Default: {one.default}." if one.default else ""]
    facts += [f"Environment variable: {one.variable}." if one.variable else ""]
    facts += ["It can be repeated." if one.repeatable else ""]
    yield from [".TP", names + value, _text(" ".join(filter(None, facts)))]


def _examples(examples: Iterable[str]) -> Iterator[str]:
    yield from [".nf", ".RS"]
    yield from map(_text, examples)
    yield from [".RE", ".fi"]


def _text(text: str) -> str:
    """Return a text in which roff sees no request, escape or hyphen."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped


if __name__ == "__main__":
    main()
