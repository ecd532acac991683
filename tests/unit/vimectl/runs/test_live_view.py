"""The live view in a real terminal, through tmux: its width, and the terminal after Ctrl-C."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import REPOSITORY, TESTS, script

pytestmark = [pytest.mark.slow, pytest.mark.needs("tmux")]

FAKE_RUNTIME = Path(__file__).with_name("fake_runtime")


class Terminal:
    """A shell in a terminal of a new tmux server."""

    def __init__(self, program: str, socket: Path, columns: int, rows: int = 24) -> None:
        self._tmux = [program, "-S", str(socket), "-f", "/dev/null"]
        size = ["-x", str(columns), "-y", str(rows)]
        self._run("new-session", "-d", *size, "env PS1='$ ' LC_ALL=C.UTF-8 bash --norc --noprofile")

    def type(self, *keys: str) -> None:
        """Press keys, named as in tmux."""
        self._run("send-keys", *keys)

    def screen(self) -> list[str]:
        """Return the lines on the screen, without empty ones at the end."""
        return self._run("capture-pane", "-p").rstrip("\n").split("\n")

    def until(self, wanted: str, seconds: float = 60) -> list[str]:
        """Wait for the screen to match a pattern and return it."""
        deadline = time.monotonic() + seconds
        while not re.search(wanted, "\n".join(screen := self.screen()), re.MULTILINE):
            assert time.monotonic() < deadline, "\n".join(screen)
            time.sleep(0.1)
        return screen

    def cursor_is_shown(self) -> bool:
        return self._run("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def close(self) -> None:
        self._run("kill-server")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[int], Terminal]]:
    opened = []

    def start(columns: int) -> Terminal:
        opened.append(Terminal("tmux", tmp_path / "tmux", columns))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def command(tmp_path: Path, write_model: Callable[..., Path]) -> str:
    """A shell script that launches the fake runtime with many short steps."""
    go = tmp_path / "go"
    go.write_text(
        f"PYTHONPATH={FAKE_RUNTIME}:{REPOSITORY}:{TESTS} XDG_CACHE_HOME={tmp_path / 'cache'} "
        f"FAKE_MODEL={write_model()} "
        f"exec {sys.executable} {script('runs.launch_recipe')} {tmp_path / 'run'} qwen3-tiny-tp2 "
        "'env.FAKE_FAULT=restart event' env.FAKE_STEP_SECONDS=0.04 modes.smoke.steps=400\n"
    )
    return f"clear; bash {go}"


@pytest.mark.parametrize("columns", [80, 200])
def test_view_fits_the_terminal_and_uses_its_width(
    terminal: Callable[[int], Terminal], command: str, columns: int
) -> None:
    window = terminal(columns)
    window.type(command, "Enter")
    screen = window.until(r"step (?:[4-9]\d|\d{3})/400")  # the curve is long enough
    view = screen[next(n for n, line in enumerate(screen) if line.startswith("test ")) :]
    assert re.match(
        r"test  step \d+/400  (rollout|train|sync)  1 restart .*\d:\d\d elapsed, \d+:\d\d left$", view[0]
    )
    assert [line.split(" ")[0] for line in view[2:]] == ["reward", "held-out", "speed", "memory", "log-probs"]
    assert len(view[0]) == len(view[1].rstrip()) == columns
    assert not any("…" in line for line in view)
    assert view[5].endswith("(↔ offloaded)")
    curve = re.search("[▁▂▃▄▅▆▇█]+$", view[2])
    assert curve
    assert len(curve[0]) >= 35
    assert bool(re.search("at most  ▁+$", view[6])) == (columns == 200)


def test_ctrl_c_restores_the_terminal(terminal: Callable[[int], Terminal], command: str) -> None:
    window = terminal(80)
    window.type(command, "Enter")
    window.until(r"^reward ")
    assert not window.cursor_is_shown()
    window.type("x", "C-c")
    window.until(r"^\$ $|^\$$")
    assert window.cursor_is_shown()
    window.type("echo it is $((40 + 2))", "Enter")
    screen = window.until(r"^it is 42$")
    assert screen[-3:-1] == ["$ echo it is $((40 + 2))", "it is 42"]
    # The view is redrawn in place: an echoed ^C would have left a second headline.
    assert screen[1].strip("━╸╺") == ""
    firsts = [line.split(" ")[0] for line in screen if not line.startswith("held-out")]  # from step 10 on
    assert [firsts[0], *firsts[2:6]] == ["test", "reward", "speed", "memory", "log-probs"]
