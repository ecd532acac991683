from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from vimectl.runs import exit_status
from vimectl.runs.exit_status import ExitStatus, kernel_oom_kills
from vimectl.runs.supervised_command import CommandOutcome

RANK = {"role": "trainer rank", "rank": 1, "pid": 7}
KILLED_RANK = ExitStatus(
    1, "trainer rank 1 (pid 7) was killed by SIGKILL", process=RANK, restartable=True, killed=True
)


def classify(
    code: int | None = 1,
    signum: int | None = None,
    cause: ExitStatus | None = None,
    error: tuple[str, str] | None = None,
    oom_kills: int = 0,
    folder: Path = Path("/proc"),
    by_itself: bool = True,
) -> ExitStatus:
    run_log = SimpleNamespace(
        done=False, error=error and {"kind": error[0], "message": error[1], "hint": "what to do"}
    )
    outcome = CommandOutcome(5, code, by_itself, signum, 0, [])
    return exit_status.classify(outcome, run_log, cause, oom_kills, [folder])  # type: ignore[arg-type]


def test_lost_process_comes_before_the_error_of_the_runtime() -> None:
    assert classify(cause=KILLED_RANK, error=("RuntimeError", "closed by peer")) == KILLED_RANK


def test_sigkill_is_explained_by_kills_of_the_kernel() -> None:
    reason = classify(cause=KILLED_RANK, oom_kills=1).reason
    assert reason.startswith(f"{KILLED_RANK.reason}; probably out of memory")
    assert "out of memory" in classify(code=-9, oom_kills=1).reason
    assert "out of memory" not in classify(code=-11, oom_kills=1).reason


def test_message_of_ray_is_kept_when_it_kills_for_lack_of_memory() -> None:
    found = classify(cause=KILLED_RANK, error=("OutOfMemoryError", "the node was running low on memory"))
    assert (found.reason, found.process) == ("the node was running low on memory", RANK)
    assert found.restartable


def test_error_of_the_runtime_is_not_restartable() -> None:
    expected = ExitStatus(1, "cannot allocate 9 TiB", "what to do")
    assert classify(error=("MemoryError", "cannot allocate 9 TiB")) == expected
    assert classify(code=2, error=("bad-input", "odd")).exit_code == 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-9, "runtime driver (pid 5) was killed by SIGKILL"),
        (-11, "runtime driver (pid 5) was killed by SIGSEGV"),
        (143, "runtime driver (pid 5) was ended by SIGTERM"),
        (None, "runtime driver (pid 5) cannot be killed"),
    ],
)
def test_exit_of_the_driver_is_named(code: int | None, reason: str) -> None:
    found = classify(code=code)
    assert (found.exit_code, found.reason, found.restartable) == (1, reason, True)


def test_killed_driver_is_blamed_before_daemons_that_exit_with_it() -> None:
    assert classify(code=-9, cause=KILLED_RANK).reason == "runtime driver (pid 5) was killed by SIGKILL"
    assert classify(code=-9, cause=KILLED_RANK, by_itself=False).reason == KILLED_RANK.reason


def test_stop_request_comes_before_everything() -> None:
    assert classify(signum=15, cause=KILLED_RANK) == ExitStatus(130, "interrupted")


def test_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = ("OSError", "[Errno 28] No space left on device")
    monkeypatch.setattr(exit_status, "FULL_BYTES", 0)
    assert classify(error=error, folder=tmp_path).reason == error[1]
    monkeypatch.setattr(exit_status, "FULL_BYTES", 2**62)
    assert classify(error=error, folder=tmp_path).reason == f"{error[1]}; no space left in {tmp_path}"
    assert classify(folder=tmp_path).reason.endswith(f"an error message; no space left in {tmp_path}")
    assert classify(error=("ValueError", "odd"), folder=tmp_path).reason == "odd"


def test_kernel_oom_kills_are_counted(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 3\noom_kill_x 4\n")
    assert kernel_oom_kills(vmstat) == 3
    assert kernel_oom_kills(tmp_path / "none") == 0
