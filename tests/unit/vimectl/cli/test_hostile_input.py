"""Odd files and arguments give a clear error, no traceback and no wait. Each call is a process."""

from __future__ import annotations

import json
import os
import pty
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs.metric_rows import metrics

DEEP = "[" * 100_000
HOSTILE = "\x1b[31m[/b]\u202e"
LONG = "a" * 300
FILES = ["fifo.toml", "folder.toml", "deep.toml", "binary.toml", "digits.toml", "zero.toml", "huge.toml"]

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in an empty folder; return its exit code and output. Ends it after two minutes."""
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def run(*argv: str | bytes) -> tuple[int, str]:
        import signal

        from vimectl.cli import run_cli

        capfd.readouterr()
        if (child := os.fork()) == 0:
            signal.alarm(120)
            try:
                code = run_cli([os.fsdecode(word) for word in argv])
                sys.stdout.flush()
                os._exit(code)
            except BaseException as e:
                os.write(2, f"{type(e).__name__}: {e}".encode(errors="replace"))
                os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out, err = capfd.readouterr()
        return code, out + err

    return run


def check_clear(found: tuple[int, str], *codes: int) -> None:
    """Check that a call ended with one of the exit codes and foresaw what it found."""
    code, output = found
    assert code in codes, output
    assert "--debug" not in output, output
    assert not set("\x1b\u202e") & set(output)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Make files that cannot be read as TOML."""
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "deep.toml").write_text(f"x = {DEEP}")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    (tmp_path / "digits.toml").write_text(f"x = {'9' * 5000}")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(2**33)
    return tmp_path


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_recipe_or_stack_is_bad_input(call: Call, name: str) -> None:
    check_clear(call("recipe", "show", f"./{name}"), 2)
    check_clear(call("stack", "show", f"./{name}"), 2)
    Path("vimectl.toml").symlink_to(name)
    check_clear(call("doctor", "--list"), 2)


@pytest.mark.parametrize(
    "argv",
    [
        ["runs", "show", LONG],
        ["runs", "show", b"\xff", "--json"],
        ["runs", "report", LONG],
        ["recipe", "show", LONG + ".toml"],
        ["recipe", "show", HOSTILE],
        ["recipe", "copy", "qwen3-tiny-tp2", LONG],
        ["recipe", "copy", "qwen3-tiny-tp2", "/dev/null"],
        ["run", "recipe", "qwen3-tiny-tp2", "--dry-run", "--run-dir", LONG],
        ["run", "recipe", "qwen3-tiny-tp2", "--dry-run", "--set", f"recipe.name={LONG}"],
        ["run", "recipe", "qwen3-tiny-tp2", "--dry-run", "--set", b"env.X=\xff"],
        ["run", "recipe", "qwen3-tiny-tp2", "--dry-run", "--set", 'env.X="\\u0000"'],
        ["doctor", "--list", "--stack", LONG],
        ["doctor", "--root", LONG],
        ["doctor", "--bundle", LONG],
        ["tms", "verify", LONG],
        ["env", "create", LONG, "--stack", "ascend-0.22"],
        [HOSTILE],
    ],
    ids=lambda argv: " ".join(str(word)[:12] for word in argv).encode("ascii", "backslashreplace").decode(),
)
def test_an_odd_argument_is_bad_input(call: Call, argv: list[str | bytes]) -> None:
    check_clear(call(*argv), 2)


def test_a_folder_with_a_long_name_has_no_runs(call: Call) -> None:
    check_clear(call("runs", "list", "--dir", LONG), 0, 2)  # since Python 3.12 it only does not exist


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Make a run directory with two steps and hostile text in every place."""
    folder = tmp_path / "runs" / "one"
    (folder / "logs").mkdir(parents=True)
    table = {"recipe": {"name": HOSTILE, "description": HOSTILE}, "env": {HOSTILE: HOSTILE}}
    document = {"recipe": table, "mode": HOSTILE, "steps": 3, "overrides": [f"env.{HOSTILE}={HOSTILE}"]}
    (folder / "resolved.json").write_text(json.dumps(document))
    error = {"kind": HOSTILE, "message": HOSTILE, "hint": HOSTILE, "where": HOSTILE, "traceback": HOSTILE}
    lines = [
        {"time": 1, "kind": "phase", "phase": "rollout", "step": 1, "steps": 3, "detail": HOSTILE},
        {"time": 1, "kind": "warning", "message": HOSTILE},
        {"time": 1, "kind": "process", "role": HOSTILE, "rank": HOSTILE, "pid": 1, "node": HOSTILE},
        {
            "time": 1,
            "kind": "sample",
            "step": 1,
            "prompt": HOSTILE,
            "response": "javascript:alert(1)",
            "reward": 1,
        },
        {"time": 1, "kind": "error", "error": error},
        {"time": 1, "kind": "restart", "attempt": 1, "step": 1, "reason": HOSTILE},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = metrics(1) | {f"evaluation/{HOSTILE}/score": 0.5, "train/loss": float("nan"), HOSTILE: 1}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "logs" / "driver.log").write_text(f"{HOSTILE}\n")
    (folder / "logs" / f"{HOSTILE.replace('/', '-')}.log").write_text(HOSTILE)
    return folder


SHOW = [["runs", "show", "one"], ["runs", "logs", "one"], ["runs", "report", "one"], ["runs", "list"]]


def test_texts_of_a_run_are_shown_visibly_everywhere(
    call: Call, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich tables
    monkeypatch.setenv("TERM", "dumb")  # without colors
    for argv in [
        *SHOW,
        ["runs", "logs", "one", "--process", "driver"],
        ["runs", "logs", "one", "--process", "x"],
    ]:
        check_clear(call(*argv), 0, 2)
    monkeypatch.delenv("FORCE_COLOR")
    for argv in SHOW:
        code, output = call(*argv, "--json")
        assert code == 0
        document = json.loads(output, parse_constant=lambda name: pytest.fail(name))
        assert document["ok"]
    page = (run_dir / "report.html").read_text()
    assert not set("\x1b\u202e") & set(page)
    assert "[/b]" in page


@pytest.mark.parametrize("name", ["resolved.json", "summary.json", "events.jsonl", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "deep", "other"])
def test_files_of_a_run_that_are_none(call: Call, run_dir: Path, name: str, kind: str) -> None:
    file = run_dir / name
    file.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "zero":
            file.symlink_to("/dev/zero")
        case "deep":
            file.write_text('{"a": ' * 100_000 + "\n")
        case _:
            file.write_text('{"ok": 1, "step": 1, "steps": "x", "kind": [], "recipe": 7, "mode": 1}\n')
    for argv in SHOW:
        check_clear(call(*argv), 0, 2)


@pytest.mark.parametrize("kind", ["device", "fifo", "link", "folder"])
def test_a_page_is_written_to_regular_files_only(
    call: Call, run_dir: Path, kind: str, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    match kind:
        case "device":
            # In its file system no file can be made: nothing is lost if it is not refused.
            target = Path(os.ttyname(pty.openpty()[1]))
        case "fifo":
            os.mkfifo(target)
        case "link":
            target.symlink_to(run_dir / "other.html")
        case _:
            target.mkdir()
    before = target.lstat()
    check_clear(call("runs", "report", "one", "--out", str(target)), 2)
    after = target.lstat()
    assert (after.st_ino, stat.S_IFMT(after.st_mode)) == (before.st_ino, stat.S_IFMT(before.st_mode))
    assert not (run_dir / "other.html").exists()


def test_a_page_is_written_to_stdout(call: Call, run_dir: Path, tmp_path: Path) -> None:
    code, output = call("runs", "report", "one", "--out", "-")
    assert code == 0
    assert output.startswith("<!DOCTYPE html>")
    assert output.rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
