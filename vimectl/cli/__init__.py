"""The command line: one module per command group, each a thin layer over a feature.

Feature modules are imported inside the commands so that `vimectl --version` stays fast.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vimectl import __version__

app = typer.Typer(
    name="vimectl",
    help=__doc__ and "Reinforcement learning on Ascend NPUs as a declared, checked, reversible state.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vimectl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    pass


def _register() -> None:
    from vimectl.cli import doctor, env, patch, recipe, run, stack, tms

    app.command("doctor")(doctor.doctor)
    app.add_typer(stack.app, name="stack")
    app.add_typer(env.app, name="env")
    app.add_typer(patch.app, name="patch")
    app.add_typer(tms.app, name="tms")
    app.add_typer(recipe.app, name="recipe")
    app.add_typer(run.app, name="run")


def main() -> None:
    """Entry point of the `vimectl` script: run a command and turn every outcome into an exit code."""
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(argv: list[str]) -> int:
    """Run one command line and return its exit code (0, 1, 2, 3 or 130)."""
    import click

    from vimectl.console import report_error
    from vimectl.errors import BadInput, VimectlError

    _register()
    command = next((word for word in argv if not word.startswith("-")), "vimectl")
    try:
        code = typer.main.get_command(app).main(args=argv, prog_name="vimectl", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except VimectlError as e:
        if "--debug" in argv:
            raise
        report_error(e, command, "--json" in argv)
        return e.exit_code
    except click.UsageError as e:
        if "--json" in argv:
            report_error(BadInput(e.format_message(), "see --help"), command, True)
        else:
            e.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        return 130
