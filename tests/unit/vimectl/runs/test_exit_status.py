from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vimectl.runs import exit_status
from vimectl.runs.exit_status import ExitStatus, blame, kernel_oom_kills
from vimectl.runs.supervised_command import CommandOutcome

RANK = {"role": "trainer rank", "rank": 1, "pid": 7}
DRIVER = {"role": "runtime driver", "rank": 0, "pid": 5}
LOST = blame(RANK, "was killed by SIGKILL", killed=True)
KILLED = blame(DRIVER, "was killed by SIGKILL", killed=True)
NO_SPACE = ("OSError", "[Errno 28] No space left on device")


def classify(
    code: int | None = 1,
    signum: int | None = None,
    cause: ExitStatus | None = None,
    error: tuple[str, str] | None = None,
    lost_peer: bool = False,
    oom_kills: int = 0,
    folder: Path = Path("/proc"),
    by_itself: bool = True,
) -> ExitStatus:
    fields = {"hint": "what to do", "where": "a.py:3", "traceback": "", "lost_peer": lost_peer}
    run_log: Any = SimpleNamespace(
        done=False, error=error and {"kind": error[0], "message": error[1], **fields}
    )
    outcome = CommandOutcome(5, code, by_itself, signum, 0, [])
    return exit_status.classify(outcome, run_log, cause, oom_kills, [folder])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"code": 0}, ExitStatus(0, "finished")),
        ({"signum": 15, "cause": LOST}, ExitStatus(130, "interrupted")),
        # A lost process comes before the error of the runtime.
        ({"cause": LOST, "error": ("RuntimeError", "closed by peer")}, LOST),
        # A killed driver is blamed before daemons that exit with it.
        ({"code": -9, "cause": LOST}, KILLED),
        ({"code": -9, "cause": LOST, "by_itself": False}, LOST),
        ({"code": -9}, KILLED),
        ({"code": -11, "oom_kills": 1}, blame(DRIVER, "was killed by SIGSEGV")),
        ({"code": 143}, blame(DRIVER, "was ended by SIGTERM")),
        ({"code": None}, blame(DRIVER, "cannot be killed")),
        # Ray kills a worker for lack of memory, and says so.
        (
            {"cause": LOST, "error": ("OutOfMemoryError", "the node is low on memory"), "lost_peer": True},
            ExitStatus(1, "the node is low on memory", process=RANK, restartable=True),
        ),
        # An error that explains itself comes back in every restart, a device's lack of memory too.
        ({"error": ("OutOfMemoryError", "9 TiB")}, ExitStatus(1, "9 TiB", "what to do", where="a.py:3")),
        ({"code": 2, "error": ("bad-input", "odd")}, ExitStatus(2, "odd", "what to do", where="a.py:3")),
        # A process on another node was lost.
        (
            {"error": ("ActorDiedError", "dead"), "lost_peer": True},
            ExitStatus(1, "dead", "what to do", where="a.py:3", restartable=True),
        ),
    ],
)
def test_end_is_classified(given: dict[str, Any], expected: ExitStatus) -> None:
    assert classify(**given) == expected


@pytest.mark.parametrize(("cause", "blamed"), [(LOST, LOST), (None, KILLED)])
def test_sigkill_is_explained_by_kills_of_the_kernel(cause: ExitStatus | None, blamed: ExitStatus) -> None:
    found = classify(code=1 if cause else -9, cause=cause, oom_kills=1)
    assert found.reason.startswith(f"{blamed.reason}; probably out of memory")
    assert replace(found, reason="") == replace(blamed, reason="")


def test_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exit_status, "FULL_BYTES", 0)
    assert classify(error=NO_SPACE, folder=tmp_path).reason == NO_SPACE[1]
    monkeypatch.setattr(exit_status, "FULL_BYTES", 2**62)
    assert classify(error=NO_SPACE, folder=tmp_path).reason == f"{NO_SPACE[1]}; no space left in {tmp_path}"
    assert classify(folder=tmp_path).reason.endswith(f"an error message; no space left in {tmp_path}")
    assert classify(error=("ValueError", "odd"), folder=tmp_path).reason == "odd"


def test_kernel_oom_kills_are_counted(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 3\noom_kill_x 4\n")
    assert kernel_oom_kills(vmstat) == 3
    assert kernel_oom_kills(tmp_path / "none") == 0
