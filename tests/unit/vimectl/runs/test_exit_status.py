from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from vimectl.runs import out_of_memory
from vimectl.runs.exit_status import Verdict, judge
from vimectl.runs.failures import Cause
from vimectl.runs.supervised_command import Outcome

RANK = {"role": "trainer rank", "rank": 1, "pid": 7}
DEATH = Cause("trainer rank 1 (pid 7) was killed by SIGKILL", RANK, killed=True)


def verdict(
    code: int | None = 1,
    signum: int | None = None,
    cause: Cause | None = None,
    error: tuple[str, str] | None = None,
    kernel_kills: int = 0,
    full: Path = Path("/proc"),
    by_itself: bool = True,
) -> Verdict:
    journal = SimpleNamespace(
        done=False, error=error and {"kind": error[0], "message": error[1], "hint": "mend"}
    )
    accidents = SimpleNamespace(cause=cause, abandoned=False)
    outcome = Outcome(5, code, by_itself, signum, 0, [])
    return judge(outcome, journal, accidents, kernel_kills, [full])  # type: ignore[arg-type]


def test_a_death_is_the_reason_whatever_the_runtime_says_of_its_consequences() -> None:
    assert verdict(cause=DEATH, error=("RuntimeError", "closed by peer")) == Verdict(
        1, DEATH.reason, process=RANK, again=True
    )


def test_the_kernel_kills_for_want_of_memory() -> None:
    assert verdict(cause=DEATH, kernel_kills=1).reason.startswith(f"{DEATH.reason}; probably out of memory")
    assert "out of memory" in verdict(code=-9, kernel_kills=1).reason
    assert "out of memory" not in verdict(code=-11, kernel_kills=1).reason


def test_rays_words_are_kept_when_it_kills_for_want_of_memory() -> None:
    found = verdict(cause=DEATH, error=("OutOfMemoryError", "the node was running low on memory"))
    assert (found.reason, found.process, found.again) == ("the node was running low on memory", RANK, True)


def test_an_error_of_its_own_is_no_accident() -> None:
    assert verdict(error=("MemoryError", "cannot allocate 9 TiB")) == Verdict(
        1, "cannot allocate 9 TiB", "mend"
    )
    assert verdict(code=2, error=("bad-input", "odd")).exit_code == 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-9, "runtime driver (pid 5) was killed by SIGKILL"),
        (-11, "runtime driver (pid 5) was killed by SIGSEGV"),
        (143, "runtime driver (pid 5) was ended by SIGTERM"),
        (None, "runtime driver (pid 5) cannot be ended"),
    ],
)
def test_the_drivers_own_end_is_named(code: int | None, reason: str) -> None:
    found = verdict(code=code)
    assert (found.exit_code, found.reason, found.again) == (1, reason, True)


def test_a_daemon_that_goes_with_the_driver_is_not_to_blame() -> None:
    assert verdict(code=-9, cause=DEATH).reason == "runtime driver (pid 5) was killed by SIGKILL"
    assert verdict(code=-9, cause=DEATH, by_itself=False).reason == DEATH.reason


def test_a_user_who_stops_it_is_obeyed_before_all() -> None:
    assert verdict(signum=15, cause=DEATH) == Verdict(130, "interrupted")


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = ("OSError", "[Errno 28] No space left on device")
    monkeypatch.setattr(out_of_memory, "FULL_BYTES", 0)
    assert verdict(error=error, full=tmp_path).reason == error[1]
    monkeypatch.setattr(out_of_memory, "FULL_BYTES", 2**62)
    assert verdict(error=error, full=tmp_path).reason == f"{error[1]}; no room left in {tmp_path}"
    assert verdict(full=tmp_path).reason.endswith(f"no word why; no room left in {tmp_path}")
    assert verdict(error=("ValueError", "odd"), full=tmp_path).reason == "odd"


def test_the_kernels_count_is_read(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 3\noom_kill_x 4\n")
    assert out_of_memory.kernel_kills(vmstat) == 3
    assert out_of_memory.kernel_kills(tmp_path / "none") == 0
