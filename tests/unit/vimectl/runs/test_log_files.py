from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.runs import log_files
from vimectl.runs.exit_status import ExitStatus, blame


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "logs" / "ray").mkdir(parents=True)
    workers = [f"engine-{engine}-worker-{rank}.log" for engine in (0, 1, 10) for rank in range(2)]
    for name in ("driver.log", "trainer-1.log", "engine-0.log", "ray/raylet.out", *workers):
        (tmp_path / "logs" / name).write_text(f"text of {name}\n")
    (tmp_path / "logs" / "trainer-0.log").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("reason", "log"),
    [
        ("trainer rank 1 (pid 77) was killed by SIGKILL", "trainer-1.log"),
        ("Trainer 1 is out of memory", "trainer-1.log"),
        ("engine worker 1 (pid 77) was killed", "engine-0-worker-1.log"),
        ("engine worker 4 (pid 77) was killed", "engine-10-worker-0.log"),
        ("engine worker 9 has no log", "driver.log"),
        ("engine 0 was killed", "engine-0.log"),
        ("the raylet has exited", "ray/raylet.out"),
        ("trainer rank 0 has an empty log", "driver.log"),
        ("engine 7 has no log", "driver.log"),
        ("the label is odd", "driver.log"),
    ],
)
def test_log_is_of_the_named_process(run_dir: Path, reason: str, log: str) -> None:
    assert log_files.explaining_log(run_dir, reason) == run_dir / "logs" / log


def test_there_may_be_no_log(tmp_path: Path) -> None:
    assert log_files.explaining_log(tmp_path, "the label is odd") is None


def test_excerpt_has_the_last_lines_only(run_dir: Path) -> None:
    log = run_dir / "logs" / "driver.log"
    log.write_text("".join(f"line {n}\n" for n in range(999)))
    assert log_files.excerpt(log).splitlines() == [f"line {n}" for n in range(984, 999)]


def test_excerpt_is_the_traceback_without_colors_and_warnings(run_dir: Path) -> None:
    log = run_dir / "logs" / "driver.log"
    log.write_text(
        "/x/lib/python3.11/site-packages/megatron/a.py:70: UserWarning: Apex is not installed.\n"
        '  warnings.warn("Apex is not installed.")\n'
        "\x1b[31mTraceback (most recent call last):\x1b[0m\n"
        '  File "/home/me/train.py", line 3, in main\n'
        "ValueError: odd\n"
        "--- 21:08:09 driver: step 1 train\n"
        "later output\n"
    )
    assert log_files.excerpt(log).splitlines() == [
        "Traceback (most recent call last):",
        '  File "/home/me/train.py", line 3, in main',
        "ValueError: odd",
    ]


TRACE = """\
(Worker_TP1 pid=7) ERROR 11-30 21:08:09 [executor.py:63] Traceback (most recent call last):
(Worker_TP1 pid=7) ERROR 11-30 21:08:09 [executor.py:63]   File "/home/me/plugin.py", line 15, in fail
(Worker_TP1 pid=7) ERROR 11-30 21:08:09 [executor.py:63] ValueError: the weights are odd
"""


@pytest.mark.parametrize("phase_after_it", [False, True])
def test_hang_is_explained_by_an_error_of_the_current_phase(run_dir: Path, phase_after_it: bool) -> None:
    mark = "--- 21:08:09 engine 0 worker 1: step 1 sync\n"
    (run_dir / "logs" / "engine-0-worker-1.log").write_text(mark + TRACE + mark * phase_after_it)
    hang = ExitStatus(1, "no progress for 9 s in phase sync", restartable=True)
    found = log_files.explain_exit(run_dir, hang)
    if phase_after_it:
        assert found is hang
        return
    assert found.reason == f"{hang.reason}; in engine-0-worker-1.log: ValueError: the weights are odd"
    assert found.where == "/home/me/plugin.py:15 in fail"
    assert not found.restartable


@pytest.mark.parametrize(
    ("line", "failure", "hint"),
    [
        ("aclrtMallocPhysical failed file=a.h func=f line=38", "aclrtMallocPhysical failed", "rollout.eager"),
        ("cpu_backup should not be nullptr file=a line=1", "cpu_backup should not be nullptr", "host_bytes"),
        ("aclrtUnmapMem failed. file=a line=1", "aclrtUnmapMem failed.", "~/ascend/log"),
    ],
)
def test_last_words_of_the_memory_saver_are_explained(
    run_dir: Path, line: str, failure: str, hint: str
) -> None:
    log = run_dir / "logs" / "trainer-1.log"
    log.write_text(f"before\n[torch_memory_saver.cpp] {line}\nafter\n")
    died = blame({"role": "trainer rank", "rank": 1, "pid": 77}, "ended with exit code 1")
    explained = log_files.explain_exit(run_dir, died)
    assert explained.reason == f"{died.reason}: torch_memory_saver ended it: {failure}"
    assert hint in explained.hint
    killed = blame({"role": "trainer rank", "rank": 1, "pid": 77}, "was killed by SIGKILL")
    assert log_files.explain_exit(run_dir, killed) is killed


def test_ends_of_ray_logs_are_kept_unless_empty(tmp_path: Path) -> None:
    session = tmp_path / "scratch" / "ray" / "session_latest" / "logs"
    session.mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    texts = {"raylet.out": "x" * 2**21 + "end", "gcs_server.err": "", "worker-1.err": "no such module"}
    for name, text in texts.items():
        (session / name).write_text(text)
    log_files.keep_ray_logs(tmp_path / "scratch", tmp_path)
    kept = {path.name: path.read_text() for path in (tmp_path / "logs" / "ray").iterdir()}
    assert kept.keys() == {"raylet.out", "worker-1.err"}
    assert kept["worker-1.err"] == "no such module"
    assert len(kept["raylet.out"]) == 2**20
    assert kept["raylet.out"].endswith("end")


def test_nothing_is_kept_without_ray(tmp_path: Path) -> None:
    log_files.keep_ray_logs(tmp_path / "nowhere", tmp_path)
    assert not (tmp_path / "logs").exists()
