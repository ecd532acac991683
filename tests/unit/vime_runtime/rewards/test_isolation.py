"""Attacks of a hostile reward on the run; each one reports whether it worked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.rewards.isolation import inherited_environment

# Each attack gets an argument from the test, and returns 1 if it worked.
ATTACKS = """
import os, signal, socket, subprocess, ctypes
from pathlib import Path

def reward(answer, label):
    try:
        return globals()[answer](label)
    except OSError:
        return 0

def kill(pid):
    os.kill(int(pid), signal.SIGTERM)
    return 1

def kill_all(_):
    os.kill(-1, signal.SIGTERM)
    return 1

def environment_of(pid):
    return Path(f"/proc/{pid}/environ").read_bytes() != b""

def memory_of(pid):
    open(f"/proc/{pid}/mem", "rb+")
    return 1

def environment(name):
    return name in os.environ

def write(path):
    Path(path).write_text("hostile")
    return 1

def append(path):
    open(path, "a").write("hostile")
    return 1

def delete(path):
    os.unlink(path)
    return 1

def rename(path):
    os.rename(path, path + "2")
    return 1

def link(path):
    os.link(path, os.environ["TMPDIR"] + "/link")
    open(os.environ["TMPDIR"] + "/link", "a").write("hostile")
    return 1

def shared_memory(name):
    Path("/dev/shm", name).write_text("hostile")
    return 1

def shell(path):
    return subprocess.run(["sh", "-c", f"echo hostile > {path}"], capture_output=True).returncode == 0

def connect(port):
    socket.create_connection(("127.0.0.1", int(port)), 5).close()
    return 1

def datagram(port):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", int(port)))
    return 1

def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)
    return 1

def ptrace(pid):
    return ctypes.CDLL(None).ptrace(16, int(pid), 0, 0) == 0

def gain_privileges(_):
    libc = ctypes.CDLL(None)
    return libc.unshare(0x00020000) == 0 and libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0

# Not attacks: what a reward may do.
def temporary_folder(_):
    folder = Path(os.environ["TMPDIR"], "one")
    folder.mkdir()
    (folder / "file").write_text("text")
    (folder / "file").rename(folder / "other")
    return (folder / "other").read_text() == "text"

def unreadable_folder(_):
    folder = Path(os.environ["TMPDIR"], "closed", "inner")
    folder.mkdir(parents=True)
    (folder / "file").touch()
    folder.chmod(0)
    folder.parent.chmod(0)
    return 1

def subprocess_(_):
    return subprocess.run(["sh", "-c", "exit 3"], stdout=subprocess.DEVNULL).returncode == 3

def event_loop(_):
    import asyncio
    return asyncio.run(asyncio.sleep(0, 1))

def recipe_environment(_):
    return os.environ["FROM_THE_RECIPE"] == "yes"
"""
ALLOWED = ("temporary_folder", "unreadable_folder", "subprocess_", "event_loop", "recipe_environment")


@pytest.fixture
def attack(start_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes attacks, given as (name, argument), and returns which ones worked."""
    monkeypatch.setenv("SERVICE_TOKEN", "secret")

    def make(*attacks: tuple[str, object], **data: Any) -> list[str]:
        started = start_pool(ATTACKS, **data)
        possible = started.pool.wait_ready()
        if possible:
            pytest.skip(f"here a reward process could {', '.join(possible)}")
        worked = []
        for name, argument in attacks:
            (score,) = started.score(name, label=str(argument))
            assert score.error is None, score.error
            worked += [name] * bool(score.reward)
        return worked

    return make


def test_a_reward_cannot_touch_the_run(attack: Any, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("rows")
    pid = os.getpid()
    name = f"reward-test-{pid}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "raylet"))
        unix.listen()
        worked = attack(
            ("kill", pid),
            ("kill_all", ""),
            ("environment_of", pid),
            ("memory_of", pid),
            ("environment", "SERVICE_TOKEN"),
            ("write", tmp_path / "new"),
            ("write", file),
            ("append", file),
            ("delete", file),
            ("rename", file),
            ("link", file),
            ("shared_memory", name),
            ("shell", file),
            ("connect", tcp.getsockname()[1]),
            ("datagram", udp.getsockname()[1]),
            ("unix_socket", tmp_path / "raylet"),
            ("ptrace", pid),
            ("gain_privileges", ""),
        )
    assert worked == []
    assert file.read_text() == "rows"
    assert not (tmp_path / "new").exists()
    assert not Path("/dev/shm", name).exists()


def test_a_reward_can_do_what_rewards_do(attack: Any) -> None:
    assert attack(*((name, "") for name in ALLOWED)) == [*ALLOWED]


def test_without_isolation_a_reward_may_call_a_service(attack: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        attacks = [("connect", port), ("environment", "SERVICE_TOKEN"), ("recipe_environment", "")]
        assert attack(*attacks, reward_isolated=False) == [name for name, _ in attacks]


def test_variables_that_may_be_secrets_are_not_inherited() -> None:
    kept = {"PATH": "/bin", "LC_ALL": "C", "LANG": "C", "HOME": "/h", "PYTHONPATH": "/p", "VIRTUAL_ENV": "/v"}
    secrets = {"RAY_AUTH_TOKEN": "1", "HF_TOKEN": "2", "OPENAI_API_KEY": "3", "SSH_AUTH_SOCK": "4"}
    assert inherited_environment(kept | secrets) == kept


def test_what_a_platform_refuses_is_said(tmp_path: Path) -> None:
    """A kernel without Landlock and seccomp, in a container that refuses namespaces."""
    code = (
        "import errno, os\n"
        "from vime_runtime.rewards import isolation\n"
        "def refuse(*_): raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))\n"
        "isolation._call = isolation._deny_calls = refuse\n"
        f"print(isolation.restrict({str(tmp_path)!r}, False))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == (
        "['write to files outside its temporary folder (Function not implemented)', "
        "'send signals to processes of this user', 'use the network (Function not implemented)']\n"
    )
