"""Run `vimectl patch apply | revert | status | verify` without Typer, if the options are plain.

Importing Typer and its reflection take 27 ms, a third of such a command, and 100 ms more since Typer 0.29.
Help, completion and every other command line are left to Typer, which also reports what is wrong with one.
"""

from __future__ import annotations

import os
import sys
from getopt import GetoptError, gnu_getopt
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vimectl.util.console import NORMAL, QUIET, VERBOSE, err, out

if TYPE_CHECKING:
    from vimectl.cli.output import CommandOutput
    from vimectl.patches.plan import PatchAction

_CHANGES, _CHECKS = ("apply", "revert"), ("status", "verify")
_VALUES = ("stack", "series", "target", "version")
_SWITCHES = {
    **dict.fromkeys(_CHECKS, ("json", "quiet", "verbose")),
    **dict.fromkeys(_CHANGES, ("json", "quiet", "verbose", "merge", "dry-run")),
}
_SHORT = {"q": "quiet", "v": "verbose", "n": "dry-run"}


def run(argv: list[str]) -> int | None:
    """Run a command line and return its exit code; None: it is one for Typer."""
    parsed = parse(argv)
    if parsed is None:
        return None
    packages, options = parsed
    err.level = QUIET if "quiet" in options else VERBOSE if "verbose" in options else NORMAL
    try:
        output = _call(argv[1], packages, options)
        output.print(f"patch.{argv[1]}", "json" in options)
        out.flush()
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return output.exit_code


def parse(argv: list[str]) -> tuple[list[str], dict[str, str]] | None:
    """Return the packages and the options, by name without dashes; None: it is a command line for Typer."""
    if argv[:1] != ["patch"]:
        return None
    switches = _SWITCHES.get("".join(argv[1:2]))
    if switches is None:
        return None
    names = [*switches, *(f"{name}=" for name in _VALUES)]
    try:
        short = "".join(letter for letter, name in _SHORT.items() if name in switches)
        found, packages = gnu_getopt(argv[2:], short, names)
    except GetoptError:
        return None
    options = {_SHORT.get(name[1:], name[2:]): value for name, value in found}
    exact = {word.partition("=")[0] for word in argv[2:] if word.startswith("-")}
    # getopt also takes abbreviations, repeated options and empty values.
    plain = exact == {name for name, _ in found} and len(found) == len(options)
    plain = plain and all(options[name] for name in _VALUES if name in options)
    plain = plain and not {"quiet", "verbose"} <= options.keys()
    return (packages, options) if plain else None


def _call(command: str, packages: list[str], options: dict[str, str]) -> CommandOutput:
    from vimectl.cli import patch_results

    target = options.get("target") or os.environ.get("VIMECTL_TARGET")
    found = patch_results.classify(
        packages,
        options.get("stack"),
        Path(options["series"]) if "series" in options else None,
        Path(target) if target else None,
        options.get("version"),
        recover=command in _CHANGES and "dry-run" not in options,
    )
    if command in _CHANGES:
        return patch_results.change(
            cast("PatchAction", command), found, "merge" in options, "dry-run" in options
        )
    return patch_results.status(command, found)
