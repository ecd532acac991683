"""The habits of a command line: global options, help, examples, choices, short forms, wrong input."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from harness import REPOSITORY
from scripts import man_page
from scripts.reference.command_list import commands
from vimectl.cli import run_cli, tree
from vimectl.cli.help_text import HelpCommand
from vimectl.images.builders import _PROGRAMS
from vimectl.stacks.choices import BuilderName
from vimectl.util.console import NORMAL, VERBOSE, err

ALL = commands()
NAMES = [command.name.split()[1:] for command in ALL]
SHORT = {"-n": "--dry-run", "-y": "--yes", "-v": "--verbose", "-q": "--quiet", "-f": "--follow"}
EXAMPLES = [(command.name, example) for command in ALL for example in command.examples]


@pytest.mark.parametrize("words", NAMES, ids=" ".join)
def test_h_is_help_on_every_level(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for line in ([*words, "-h"], [*words, "--help"], ["help", *words]):
        assert run_cli(line) == 0
        shown.append(capsys.readouterr().out)
    assert shown == [shown[0]] * 3
    assert shown[0].startswith(f"Usage: vimectl {' '.join(words)}")
    assert "-q, --quiet" in shown[0]


def test_every_command_has_an_example_and_exit_codes() -> None:
    leaves = [command for command in ALL if not command.is_group]
    lacking = [command.name for command in leaves if not (command.examples and command.exit_codes)]
    assert lacking == []
    assert all(issubclass(type(command), HelpCommand) for command in leaf_commands(tree.command_tree()))


def leaf_commands(group: Any) -> list[Any]:
    """Return the commands below a group."""
    found = []
    for command in group.commands.values():
        found += leaf_commands(command) if hasattr(command, "commands") else [command]
    return found


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_parses(name: str, example: str) -> None:
    words = shlex.split(example, comments=True)
    if words[0] != "vimectl":  # of a program that takes the output
        words = shlex.split(example[example.index("vimectl") : example.index(")")])
    words = words[1 : words.index(">")] if ">" in words else words[1:]
    command: Any = tree.command_tree()
    context = command.make_context("vimectl", words, resilient_parsing=False)
    while rest := [*context._protected_args, *context.args]:
        if not hasattr(context.command, "commands"):
            break
        called, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(called, rest, parent=context)
    assert not hasattr(command, "commands"), "a group is no example"


def test_a_short_option_has_one_meaning() -> None:
    found: dict[str, set[str]] = {}
    for command in leaf_commands(tree.command_tree()):
        for option in command.params:
            for short in [name for name in option.opts if len(name) == 2 and len(option.opts) > 1]:
                found.setdefault(short, set()).add(max(option.opts, key=len))
            if "--dry-run" in option.opts or "--yes" in option.opts:
                assert len(option.opts) == 2
    assert {short: found[short] for short in SHORT} == {short: {long} for short, long in SHORT.items()}
    assert all(len(longs) == 1 for longs in found.values())


@pytest.mark.parametrize("line", ["--json -q stack list", "stack --json -q list", "stack list -q --json"])
def test_global_options_are_taken_everywhere(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(line.split()) == 0
    assert '"schema": "vimectl.stack.list/1"' in capsys.readouterr().out


@pytest.mark.parametrize("line", ["--version", "doctor --version", "patch --version", "runs list --version"])
def test_version_is_printed_everywhere(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(line.split()) == 0
    assert capsys.readouterr().out == f"vimectl {tree.__version__}\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("run qwen3-tiny-tp2 --mode smok", "'smok' is not one of 'smoke', 'test', 'long'"),
        ("image build --builder dockr", "'dockr' is not one of 'auto', 'docker', 'podman', 'buildah'"),
        ("image plan --chip a9", "'a9' is not one of 'a2', 'a3'"),
        ("image plan --machine arm", "'arm' is not one of 'x86_64', 'aarch64'"),
        ("patch lint x --format json", "'json' is not one of 'text', 'github'"),
        ("patch stats", "No such command 'stats'. Did you mean 'status'?"),
        ("recipes list", "No such command 'recipes'. Did you mean 'recipe'"),
        ("doctor --recip x", "No such option: --recip (Possible options: --help, --recipe)"),
        ("run", "vimectl run recipe NAME"),
        ("run --json", "Missing argument 'RECIPE'"),
        ("recipe show", "Missing argument 'RECIPE'"),
        ("doctor --only", "'--only' requires an argument"),
        ("", "Usage: vimectl"),
    ],
)
def test_wrong_input_is_explained(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(line.split()) == 2
    shown = capsys.readouterr()
    assert text.lower() in " ".join((shown.err + shown.out).lower().split())


def test_builders_are_those_of_the_option() -> None:
    assert get_args(BuilderName) == ("auto", *_PROGRAMS)


@pytest.mark.usefixtures("_elsewhere")
def test_run_takes_a_recipe_directly(run_json: Callable[..., Any], tmp_path: Path) -> None:
    for words in (["qwen3-tiny-tp2"], ["-n", "qwen3-tiny-tp2"], ["recipe", "qwen3-tiny-tp2"]):
        code, document = run_json("run", *words, "--dry-run", "--run-dir", str(tmp_path / "run"))
        assert code in (0, 3)  # this machine may lack what the recipe needs
        assert (document["schema"], document["mode"]) == ("vimectl.run.recipe/1", "test")
    code, document = run_json("run", "./none.toml")
    assert (code, document["schema"]) == (2, "vimectl.run.recipe/1")


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "elsewhere" / "one"
    run.mkdir(parents=True)
    document = {"recipe": {"recipe": {"name": "tiny"}}, "mode": "smoke", "steps": 4, "run_dir": str(run)}
    document |= {"schema": "vimectl.run/1", "scratch_dir": str(tmp_path / "vime-0")}
    (run / "resolved.json").write_text(json.dumps(document))


@pytest.mark.usefixtures("_run")
def test_every_command_of_runs_takes_the_folder(run_json: Callable[..., Any], tmp_path: Path) -> None:
    for command in ("show", "logs", "report"):
        assert run_json("runs", command, "one", "--dir", "elsewhere")[0] == 0
    assert (tmp_path / "elsewhere" / "one" / "report.html").exists()
    code, document = run_json("runs", "rm", "one", "--dir", "elsewhere", "-n")
    assert (code, document["removed"], len(document["runs"])) == (0, [], 1)
    assert (tmp_path / "elsewhere" / "one").exists()


@pytest.mark.usefixtures("_elsewhere")
def test_init_prints_the_file_of_a_dry_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_cli(["init", "-n"]) == 0
    text = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert run_cli(["init", "-q"]) == 0
    assert (tmp_path / "vimectl.toml").read_text() == text
    assert run_cli(["init", "-n"]) == 2


def test_verbose_prints_the_programs_and_hides_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(err, "level", VERBOSE)
    err.command(["git", "clone", "https://user:hunter2@example.com/x y"])
    shown = capsys.readouterr().err
    assert shown.startswith("+ git clone")
    assert "hunter2" not in shown
    assert run_cli(["stack", "list"]) == 0
    assert err.level == NORMAL, "the next command starts without -v"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_help_is_plain_when_piped(columns: str) -> None:
    environment = os.environ | {"COLUMNS": columns}
    command = [sys.executable, "-m", "vimectl", "run", "-h"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert not set("\x1b╭│─") & set(done.stdout)
    assert "  vimectl run qwen3-tiny-tp2\n" in done.stdout


def test_the_man_page_is_current() -> None:
    page = (REPOSITORY / "docs" / "vimectl.1").read_text(encoding="utf-8")
    assert page == "\n".join(man_page.page()) + "\n", "python -m scripts.man_page > docs/vimectl.1"
