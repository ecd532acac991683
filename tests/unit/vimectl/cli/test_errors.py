"""Errors of every command group: exit code, schema, kind, message and hint."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("argv", "schema", "text"),
    [
        ("recipe show qwen3-tiny", "recipe.show", "unknown recipe 'qwen3-tiny'. Did you mean"),
        ("recipe list --jsn", "recipe.list", "No such option"),
        ("run recipe", "run.recipe", "Missing argument"),
        ("stack show cpu-0.33", "stack.show", "cpu-0.32"),
        ("doctor --root {folder}", "doctor", "give the stack you want with --stack"),
        ("doctor --set env.VLLM_PLUGINS=other", "doctor", "give it with --recipe"),
        ("doctor --bundle {folder}/file", "doctor", "file"),
        ("tms record /absent.so --note x", "tms.record", "/absent.so"),
        ("tms record {folder}/file --note=", "tms.record", "with the reason why it is good"),
        ("tms verify /absent.so", "tms.verify", "/absent.so"),
        ("tms verify --recipe no-such-recipe", "tms.verify", "no-such-recipe"),
        ("env create {folder} --stack cpu-0.32", "env.create", "{folder}"),
        ("image plan --stack ascend-9", "image.plan", "ascend-9"),
        ("image plan --stack cpu-0.32 --chip a2", "image.plan", "a2"),
        ("image run-args --stack none.toml", "image.run-args", "none.toml"),
        ("runs show faild --dir {folder}/runs", "runs.show", "Did you mean failed?"),
    ],
)
def test_bad_input_is_one_document_and_exit_code_2(
    run_json: Callable[..., Any], tmp_path: Path, argv: str, schema: str, text: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "runs" / "failed").mkdir(parents=True)
    (tmp_path / "runs" / "failed" / "resolved.json").touch()
    code, document = run_json(*argv.format(folder=tmp_path).split())
    error = document["error"]
    assert (code, document["schema"], document["ok"]) == (2, f"vimectl.{schema}/1", False)
    assert error["kind"] == "bad-input"
    assert text.format(folder=tmp_path) in error["message"] + error["hint"]


def vimectl(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vimectl", *argv], capture_output=True, text=True)


def test_no_arguments_prints_the_help() -> None:
    done = vimectl()
    assert "Usage: vimectl" in done.stdout + done.stderr
    assert "recipe" in done.stdout + done.stderr


def test_error_as_text_is_a_message_and_a_hint_on_stderr() -> None:
    done = vimectl("recipe", "show", "qwen3-tiny")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: unknown recipe 'qwen3-tiny'. Did you mean")
    assert lines[1].startswith("hint:")
    assert "Traceback" not in done.stderr


def test_error_as_document_leaves_stderr_empty() -> None:
    done = vimectl("recipe", "show", "qwen3-tiny", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["error"]["kind"] == "bad-input"


def test_debug_shows_a_traceback() -> None:
    assert "Traceback" in vimectl("--debug", "recipe", "show", "none").stderr


def test_closed_pipe_ends_the_command_quietly() -> None:
    argv = [sys.executable, "-m", "vimectl", "recipe", "list"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (1, b"")
