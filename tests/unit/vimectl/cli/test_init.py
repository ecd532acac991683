"""The command line as a process: stdout, stderr and exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def vimectl(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vimectl", *argv], capture_output=True, text=True)


def test_no_arguments_prints_the_help() -> None:
    done = vimectl()
    assert "Usage: vimectl" in done.stdout + done.stderr
    assert "recipe" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("argv", "schema", "message"),
    [
        (["recipe", "show", "qwen3-tiny", "--json"], "vimectl.recipe.show/1", "unknown recipe 'qwen3-tiny'"),
        (["recipe", "list", "--jsn", "--json"], "vimectl.recipe.list/1", "No such option"),
        (["run", "recipe", "--json"], "vimectl.run.recipe/1", "Missing argument"),
    ],
)
def test_bad_usage_is_one_json_document_and_exit_code_2(argv: list[str], schema: str, message: str) -> None:
    done = vimectl(*argv)
    document = json.loads(done.stdout)
    assert done.returncode == 2
    assert (document["schema"], document["ok"]) == (schema, False)
    assert message in document["error"]["message"]


def test_error_as_text_is_a_message_and_a_hint_on_stderr() -> None:
    done = vimectl("recipe", "show", "qwen3-tiny")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0].startswith("error: unknown recipe 'qwen3-tiny'. Did you mean")
    assert done.stderr.splitlines()[1].startswith("hint:")


def test_traceback_only_with_debug() -> None:
    quiet, loud = vimectl("recipe", "show", "none"), vimectl("--debug", "recipe", "show", "none")
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr
