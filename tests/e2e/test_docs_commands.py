"""Every command in README.md and docs/: its options exist, and it runs, here or in the test named here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import dropwhile
from pathlib import Path

import pytest

from harness import REPOSITORY
from harness.documented_commands import DocumentedCommand, commands_in, documented_commands
from harness.runs.recipe_run import VIMECTL, run_recipe
from vimectl.cli import tree

COMMANDS = documented_commands()
# test_tutorials.py runs those of the tutorials, with what they need.
IN_BLOCKS = {c.text: c for c in COMMANDS if c.in_block and "/tutorial/" not in c.where}

# Commands that do not run here as they are written: a pattern, and the test that runs them, or a reason.
ELSEWHERE = {
    r"vimectl doctor .*--address": "tests/e2e/test_doctor_nodes.py",
    r"vimectl doctor --fix": "tests/e2e/test_doctor_fixes.py",
    r"vimectl env create .* --stack cpu": "tests/unit/vimectl/env/test_create.py",
    r"vimectl env create .* --stack ascend": "tests/upstream/test_ascend_environment.py",
    r"vimectl run recipe .*--resume": "tests/e2e/test_resume.py",
    r"vimectl image (vendor|build|verify)": "tests/unit/vimectl/images/test_build.py",
    r"vimectl patch save": "tests/unit/vimectl/patches/test_save.py",
    r"vimectl patch (apply|revert|verify)(?!.*--dry-run)": "tests/unit/vimectl/patches/test_project.py",
    r"vimectl patch (import|export)": "tests/unit/vimectl/patches/interchange",
    r"vimectl patch port": "tests/unit/vimectl/patches/port",
    r"vimectl patch lint": "tests/unit/vimectl/patches/lint",
    r"vimectl recipe validate DIR/": "tests/unit/vimectl/cli/test_recipe.py",
    r"vimectl run recipe DIR/": "tests/unit/vimectl/cli/test_run.py",
    r"vimectl runs (show|report|stop|logs|rm)": "tests/unit/vimectl/cli/test_runs.py",
    r"vimectl stack new": "tests/unit/vimectl/stacks/test_new.py",
}
# Exit codes of commands here that are no defect of the text.
ALLOWED = {"doctor": (0, 1), "image": (0, 3), "run": (0, 3), "tms": (0, 3)}


def check_exists(words: Sequence[str]) -> None:
    """Parse a command line as the tool does. Raises USAGE_ERROR or KeyError for an unknown part."""
    command = tree.command_tree()
    rest = list(dropwhile(("--json", "--debug", "--version").__contains__, words[1:]))
    while rest and hasattr(command, "commands"):
        default = getattr(command, "default_command", None)
        command = command.commands[default if default and rest[0] != default else rest.pop(0)]
    if not hasattr(command, "commands"):
        command.make_context(command.name, rest)


def test_unknown_parts_of_a_command_are_noticed() -> None:
    check_exists(["vimectl", "doctor", "--recipe", "NAME"])
    check_exists(["vimectl", "patch"])
    check_exists(["vimectl", "run", "NAME", "--dry-run"])
    for words in ("doctor --recipes NAME", "recipe copy", "runs list --no", "run recipe x --model y"):
        with pytest.raises(tree.USAGE_ERROR):
            check_exists(["vimectl", *words.split()])
    with pytest.raises(KeyError):
        check_exists(["vimectl", "runs", "lists"])


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.words[0] == "vimectl"], ids=lambda c: f"{c.where} {c.text}"
)
def test_documented_command_exists(command: DocumentedCommand) -> None:
    try:
        check_exists(command.words)
    except tree.USAGE_ERROR as e:
        # A command that the text mentions may lack arguments; that is noticed after unknown options.
        if command.in_block or type(e).__name__ != "MissingParameter":
            raise


def test_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`vimectl runs list \\| show RUN` and `vimectl doctor [--fix]`\n\n"
        "    A=1 .venv/bin/vimectl recipe list   # comment\n"
        "    docker run $(vimectl image run-args --stack x) && make run\n"
        "    vimectl/   the tool\n\n```\n$ vimectl init\n```\n"
    )
    assert [command.text for command in commands_in(page)] == [
        "vimectl recipe list",
        "vimectl image run-args --stack x",
        "make run",
        "vimectl init",
        "vimectl runs list",
        "vimectl runs show RUN",
        "vimectl doctor --fix",
    ]


def test_the_tests_that_run_other_commands_exist() -> None:
    missing = [test for test in ELSEWHERE.values() if not (REPOSITORY / test).exists()]
    unused = [pattern for pattern in ELSEWHERE if not any(re.match(pattern, text) for text in IN_BLOCKS)]
    assert (missing, unused) == ([], [])


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> dict[str, str]:
    """Words of the text, and what replaces them."""
    folder = tmp_path_factory.mktemp("documented")
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": "t3 t4", "label": "7"}) + "\n" for _ in range(512)))
    model = make_model(family="qwen3")
    (model / "tokenizer.json").write_text("{}")
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    return {
        "model.path=DIR": f"model.path={model}",
        "data.path=FILE": f"data.path={data}",
        "DIR": str(root),
        "DIR/qwen3-tiny-tp2.toml": str(REPOSITORY / "recipes" / "qwen3-tiny-tp2.toml"),
        "/mnt/image": str(root),
        "/opt/env/bin/python": sys.executable,
        "/shared/run": str(folder / "run"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("text", [t for t in IN_BLOCKS if not any(re.match(p, t) for p in ELSEWHERE)])
def test_documented_command_runs(text: str, values: dict[str, str], tmp_path: Path) -> None:
    """A run and make are dry. A check of the doctor may fail here, and a machine may lack NPUs."""
    program, *words = IN_BLOCKS[text].words
    if program == "make":
        command, folder, allowed = ["make", "-n", *words], REPOSITORY, (0,)
    else:
        dry = ["--dry-run"] if words[0] == "run" else []
        command = [*VIMECTL, *(values.get(word, word) for word in words), *dry]
        folder, allowed = tmp_path, ALLOWED.get(words[0], (0,))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode in allowed, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.needs("network")
def test_the_example_with_a_verifier_trains(tmp_path: Path) -> None:
    """The README's command as it is, but for the length: one step."""
    (example,) = {text for text in IN_BLOCKS if "data.path=reasoning_gym:" in text}
    words = IN_BLOCKS[example].words
    run = run_recipe(tmp_path / "run", "--mode", "smoke", *words[4:], recipe=words[3])
    assert run.code == 0, run.output
    assert all(row["reward/mean"] >= 0 for row in run.metrics)
