"""A pool with rewards that hang, end their process, raise, or send what they should not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from vime_runtime.batch import Response
from vime_runtime.data.problems import Problem
from vime_runtime.rewards.pool import TRAINING_SET
from vime_runtime.rewards.score import RewardError

from harness.runs.wait import wait_until

# ``reward`` does what the response says, or returns its number.
OBEY = """
import ctypes, json, os, signal, sys, time

def reward(response):
    return float(response) if response[0].isdigit() else globals()[response]()

def hang():
    while True:
        time.sleep(0.01)

def leave():
    sys.exit("enough")

def leave_at_once():
    os._exit(3)

def crash():
    ctypes.string_at(0)

def allocate():
    return len(bytearray(10 * 2**30))

def fail():
    raise KeyError("x")

def unprintable():
    class Strange(Exception):
        def __str__(self):
            raise RuntimeError
    raise Strange

def escape():
    raise ValueError("\\x1b[2J" + "x" * 5000)

def protocol():
    return next(int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and "socket" in
                os.readlink(f"/proc/self/fd/{fd}"))

def forge():
    os.write(protocol(), b'{"index": 99, "reward": 1}\\n')
    hang()

def forge_rewards():
    os.write(protocol(), b'{"index": 1, "reward": NaN}\\n')
    hang()

def forge_types():
    os.write(protocol(), b'{"index": 1, "error": {"message": 1}}\\n')
    hang()

def garbage():
    os.write(protocol(), b"\\xff[" * 1000 + b"\\n")
    hang()

def endless():
    while True:
        os.write(protocol(), b"x" * 65536)

def deep():
    os.write(protocol(), b"[" * 60000 + b"\\n")
    hang()

def close():
    os.closerange(3, 64)
    hang()

def fork_and_return():
    os.fork()
    return 4.0

def print_much():
    for _ in range(100):
        print("x" * 2**20)
    return 5.0

def print_escapes():
    print("\\x1b]0;title\\x07 \\x9b2J line\\r\\tend")
    sys.stderr.write("error stream\\n")
    return 6.0
"""


def outcomes(scores: list[Any]) -> list[Any]:
    return [score.error.kind if score.error else score.reward for score in scores]


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("hang", ("timeout", "no reward within 1 s", "in hang")),
        ("leave", ("exception", "SystemExit: enough", "in leave")),
        ("leave_at_once", ("crash", "the reward process exited with code 3", "")),
        ("crash", ("crash", "the reward process was killed by SIGSEGV", "in crash")),
        ("allocate", ("exception", "MemoryError", "in allocate")),
        ("fail", ("exception", "KeyError: 'x'", "in fail")),
        ("unprintable", ("exception", "Strange: (an exception whose text cannot be made)", "in unprintable")),
        ("escape", ("exception", r"ValueError: \x1b[2J" + "x" * 979, "in escape")),
        ("forge", ("crash", "the reward process sent a damaged reply", "")),
        ("forge_rewards", ("crash", "the reward process sent a damaged reply", "")),
        ("forge_types", ("crash", "the reward process sent a damaged reply", "")),
        ("garbage", ("crash", "the reward process sent a damaged reply", "")),
        ("endless", ("crash", "the reward process sent a damaged reply", "")),
        ("deep", ("crash", "the reward process sent a damaged reply", "")),
        ("close", ("crash", "the reward process was killed by SIGKILL", "")),
    ],
)
def test_only_the_response_that_fails_is_lost(
    start_pool: Any, does: str, error: tuple[str, str, str]
) -> None:
    started = start_pool(OBEY, reward_timeout=1.0)
    scores = started.score("1", does, "2", "3")
    assert outcomes(scores) == [1, error[0], 2, 3]
    found = scores[1].error
    assert (scores[1].reward, found.kind) == (0, error[0])
    # Characters that are escaped after the message is cut make it longer.
    assert found.message.startswith(error[1])
    assert found.where.endswith(error[2])
    if error[2]:
        assert "user_rewards.py:" in found.where
    if error[0] == "exception":
        assert found.traceback.startswith("Traceback (most recent call last):\n  File ")
        assert "vime_runtime" not in found.traceback
    assert outcomes(started.score("4", "5")) == [4, 5]


def test_a_fork_that_returns_sends_nothing(start_pool: Any) -> None:
    started = start_pool(OBEY)
    assert outcomes(started.score("fork_and_return", "2")) == [4, 2]
    assert outcomes(started.score("3")) == [3]


def test_a_coroutine_or_a_batch_that_hangs_costs_what_is_not_scored(start_pool: Any) -> None:
    started = start_pool(
        "import asyncio, time\n"
        "async def reward(answer):\n"
        "    await asyncio.sleep(30 * (answer == 'hang'))\n"
        "    return 1\n"
        "def batch(answers):\n"
        "    time.sleep(30 * ('hang' in answers))\n"
        "    return [1] * len(answers)\n",
        ["batch"],
        reward_timeout=0.5,
    )
    assert outcomes(started.score("hang", "1", "2")) == ["timeout", 1, 1]
    assert outcomes(started.score("hang", "1", "2", name="batch")) == ["timeout"] * 3
    assert outcomes(started.score("1", "2", name="batch")) == [1, 1]


def test_output_is_in_the_log_without_control_characters(start_pool: Any) -> None:
    started = start_pool(OBEY)
    assert outcomes(started.score("print_escapes")) == [6]
    started.pool.close()
    assert started.log == "\\x1b]0;title\\x07 \\x9b2J line\\r\tend\nerror stream\n"


def test_the_log_does_not_grow_endlessly(start_pool: Any) -> None:
    started = start_pool(OBEY)
    assert outcomes(started.score("print_much", "1")) == [5, 1]
    started.pool.close()
    assert len(started.log) < 17 * 2**20
    assert started.log.endswith("further output is not kept\n")


def test_groups_are_scored_while_others_wait(start_pool: Any, tmp_path: Path) -> None:
    """The first group is complete only when the second one has been scored by another process."""
    flag = tmp_path / "flag"
    started = start_pool(
        "import os, time\n"
        "def reward(response):\n"
        "    if response == 'set': open(os.environ['TMPDIR'] + '/../../flag', 'w')\n"
        f"    while not os.path.exists({str(flag)!r}): time.sleep(0.01)\n"
        "    return 1\n",
        reward_isolated=False,
    )
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: one process")
    submit, problem = started.pool.submit, Problem([1], "", "")
    waiting = submit(TRAINING_SET, problem, [Response([1], [0.0], "stop", "wait")])
    assert submit(TRAINING_SET, problem, [Response([1], [0.0], "stop", "set")]).result()
    assert outcomes(waiting.result()) == [1]


def descendants() -> set[psutil.Process]:
    """Return the processes that this one and its children have started."""
    return set(psutil.Process().children(recursive=True))


def test_processes_share_a_large_group(start_pool: Any) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: one process")
    started = start_pool(
        "import os, zlib\ndef reward(response): return zlib.crc32(os.environ['TMPDIR'].encode()) % 1_000_003"
    )
    # Until both are ready, one scores alone.
    wait_until(lambda: len({score.reward for score in started.score(*"12345678")}) == 2)


def test_long_responses_and_tokens_reach_the_process(start_pool: Any) -> None:
    started = start_pool("def reward(response, tokens): return len(response) + len(tokens)")
    long = Response([1] * 400_000, [0.0] * 400_000, "length", "x" * 300_000)
    future = started.pool.submit(TRAINING_SET, Problem([1], "", ""), [long, long])
    assert outcomes(future.result()) == [700_000] * 2


def test_a_process_that_does_not_start_again_ends_the_waiting(start_pool: Any, tmp_path: Path) -> None:
    started = start_pool(
        f"import os\nif os.path.exists({str(tmp_path / 'broken')!r}): raise RuntimeError('changed')\n"
        "def reward(response): os._exit(1)\n"
    )
    started.pool.wait_ready()
    (tmp_path / "broken").touch()
    with pytest.raises(Exception, match="RuntimeError: changed"):
        started.score("1", "2", "3")
    with pytest.raises(Exception, match="RuntimeError: changed"):
        started.score("1")


def test_a_closed_pool_leaves_no_process(start_pool: Any) -> None:
    others = descendants()  # of other tests
    started = start_pool(OBEY, reward_timeout=60.0)
    started.score("1")
    children = descendants() - others
    pending = started.pool.submit(TRAINING_SET, Problem([1], "", ""), [Response([1], [0.0], "stop", "hang")])
    started.pool.close()
    assert children
    assert not [child for child in children if child.is_running()]
    with pytest.raises(Exception, match="were closed"):
        pending.result()
    started.pool.close()


DRIVER = """
import sys, time
from pathlib import Path
from vime_runtime.batch import Response
from vime_runtime.data.problems import Problem
from vime_runtime.rewards.pool import RewardPool
from vime_runtime.spec.recipe import DataTable

table = DataTable(path="d", reward="user_rewards:reward", reward_isolated=sys.argv[2] == "isolated")
pool = RewardPool({"train": table}, Path(sys.argv[1]), Path(sys.argv[1], "rewards.log"))
future = pool.submit("train", Problem([1], "", ""), [Response([1], [0.0], "stop", "hang")])
pool.wait_ready()
print("ready", flush=True)
try:
    future.result()
except KeyboardInterrupt:
    pool.close()
    print("interrupted", flush=True)
"""
# Leaves a process that is in its own session and ignores signals.
DAEMON = """
import os, signal, time
def reward(response):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for signum in range(1, 32):
            if signum not in (9, 19):
                signal.signal(signum, signal.SIG_IGN)
        time.sleep(600)
    time.sleep(600 * (response == "hang"))
    return 1
"""


@pytest.mark.parametrize("isolated", ["isolated", "open"])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_driver_ends(
    user_module: Any, tmp_path: Path, signum: signal.Signals, isolated: str
) -> None:
    """SIGKILL leaves no time to close; SIGINT must interrupt the wait for a reward that hangs."""
    user_module(DAEMON)
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), isolated], stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        process = psutil.Process(driver.pid)
        # A guard and a worker for each of one or two processes, and the daemon.
        wait_until(lambda: len(process.children(recursive=True)) % 2 == 1)
        descendants = process.children(recursive=True)
        driver.send_signal(signum)
        rest = driver.stdout.read()
    assert rest == ("interrupted\n" if signum == signal.SIGINT else "")
    wait_until(lambda: not any(one.is_running() for one in descendants))
    wait_until(lambda: not list(tmp_path.glob("reward-*")))


@pytest.mark.parametrize("isolated", [True, False])
def test_a_daemon_ends_with_its_process(start_pool: Any, isolated: bool) -> None:
    others = descendants()  # of other tests
    started = start_pool(DAEMON, reward_isolated=isolated, reward_timeout=1.0)
    started.pool.wait_ready()
    assert outcomes(started.score("1")) == [1]
    before = descendants() - others
    assert outcomes(started.score("hang", "hang")) == ["timeout"] * 2
    assert outcomes(started.score("1")) == [1]
    started.pool.close()
    assert before
    assert not [process for process in before if process.is_running()]


def test_errors_are_values(start_pool: Any) -> None:
    (score,) = start_pool(OBEY).score("fail")
    assert score.error == RewardError("exception", "KeyError: 'x'", score.error.where, score.error.traceback)
    assert score.error.traceback.endswith("KeyError: 'x'")
