"""Completion in bash, zsh and fish: the shells are started in a pseudo-terminal, and Tab is pressed."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import REPOSITORY
from harness.needs import require
from harness.terminal import read_until

# What is typed before Tab, and the words after it.
LINES = {
    "pat": "patch",
    "runs sh": "runs show",
    "--json pat": "--json patch",
    "doctor --imp": "doctor --imports",
    "stack show cp": "stack show cpu-0.32",
    "stack show mi": "stack show mine.toml",
    "doctor --only device.cou": "doctor --only device.count",
    "run smol": "run smollm2-135m",
    "run recipe smol": "run recipe smollm2-135m",
    "run qwen3-tiny-tp2 --mode sm": "run qwen3-tiny-tp2 --mode smoke",
    "run qwen3-tiny-tp2 --mode=sm": "run qwen3-tiny-tp2 --mode=smoke",
    "run qwen3-tiny-tp2 --set model.dt": "run qwen3-tiny-tp2 --set model.dtype=",
    "run qwen3-tiny-tp2 --set model.dtype=b": "run qwen3-tiny-tp2 --set model.dtype=bfloat16",
    "run qwen3-tiny-tp2 --set rollout.eager=f": "run qwen3-tiny-tp2 --set rollout.eager=false",
    "run qwen3-tiny-tp2 --set data.path=mi": "run qwen3-tiny-tp2 --set data.path=mine.toml",
    "recipe schema rollout.top_k": "recipe schema rollout.top_k",
    "runs show fi": "runs show first-run",
    "runs rm --dir elsewhere ot": "runs rm --dir elsewhere other-run",
    "runs logs first-run --process tr": "runs logs first-run --process trainer-0",
    "image plan --machine aar": "image plan --machine aarch64",
    "image build --builder pod": "image build --builder podman",
    "patch apply tin": "patch apply tiny",
    "patch drop fi": "patch drop first-patch",
    "patch port vllm --from 0.22": "patch port vllm --from 0.22.1",
    "patch lint --against vllm==0.22": "patch lint --against vllm==0.22.1",
    "patch export vllm --format mb": "patch export vllm --format mbox",
    "env create fol": "env create folder/",
}
PATCH = (
    "Description: x\n\ndiff --git a/tiny/m.py b/tiny/m.py\n"
    "index 78981922613b2afb6025042ff6bd878ac1994e85..61780798228d17af2d34fce4cfbdf35556832472 100644\n"
    "--- a/tiny/m.py\n+++ b/tiny/m.py\n@@ -1 +1 @@\n-a\n+b\n"
)
INTERACTIVE = {"bash": ["bash", "-i"], "zsh": ["zsh", "-i"], "fish": ["fish", "-i"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a project with runs, a patch, a TOML file and a folder; "bin" has vimectl."""
    for run in ("work/runs/first-run", "work/elsewhere/other-run"):
        (tmp_path / run / "logs").mkdir(parents=True)
        (tmp_path / run / "resolved.json").touch()
        (tmp_path / run / "logs" / "trainer-0.log").touch()
    work = tmp_path / "work"
    (work / "folder").mkdir()
    (work / "mine.toml").touch()
    (work / "ours").mkdir()
    (work / "ours" / "series").write_text("first-patch.patch\n")
    (work / "ours" / "first-patch.patch").write_text(PATCH)
    (work / "vimectl.toml").write_text(
        'extends = "cpu-0.32"\n[packages]\ntiny = "1"\n[patches]\ntiny = ["./ours"]\n'
    )
    program = tmp_path / "bin" / "vimectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vimectl "$@"\n')
    program.chmod(0o755)
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    """Variables of a new user whose PATH has vimectl."""
    return {
        "HOME": str(folder / "home"),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'runtime'}",
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
    }


class Shell:
    """An interactive shell in a pseudo-terminal."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._terminal, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("4H", 50, 400, 0, 0))
        self._process = subprocess.Popen(
            command,
            cwd=folder / "work",
            env=environment,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(other)

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._terminal, text.encode())

    def read_until(self, text: str) -> str:
        """Return what the shell writes up to a text and beyond."""
        return read_until(self._terminal, text)

    def close(self) -> None:
        """End the session."""
        os.close(self._terminal)
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=INTERACTIVE)
def shell(
    request: pytest.FixtureRequest,
    folder: Path,
    environment: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Shell]:
    """Start a shell for which the completion was installed."""
    name = request.param
    if name != "bash":
        require(name)
    subprocess.run(["vimectl", "--install-completion", name], env=environment, check=True, cwd=folder)
    started = Shell(INTERACTIVE[name], folder, environment)
    started.type("printf 'sta%s\\n' rted\n")
    started.read_until("started")
    yield started
    started.close()


def test_tab_completes_every_kind_of_value(shell: Shell) -> None:
    found = {}
    for number, line in enumerate(LINES):
        # Tab, then the beginning of the line: the words are printed as the shell takes them.
        shell.type(f"vimectl {line}\t")
        shell.type(f"\x01printf '<%s>' \x05 {number}done\n")
        output = shell.read_until(f"<{number}done>")
        words = re.findall(r"<([^<>]*)>", output[output.rindex("<vimectl>") :])
        # zsh removes the slash at the end of a word when something else is typed.
        found[line] = " ".join(words[1:-1]).removesuffix("/")
    assert found == {line: completed.removesuffix("/") for line, completed in LINES.items()}
