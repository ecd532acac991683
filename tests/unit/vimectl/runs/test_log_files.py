from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.runs import log_files
from vimectl.runs.exit_status import blame


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
def test_tail_is_of_the_named_process(run_dir: Path, reason: str, log: str) -> None:
    shown = log_files.tail(run_dir, reason).splitlines()
    assert shown == [f"text of {log}", f"the whole log: {run_dir}/logs/{log}"]


def test_tail_has_the_last_lines_only(run_dir: Path) -> None:
    (run_dir / "logs" / "driver.log").write_text("".join(f"line {n}\n" for n in range(999)))
    assert log_files.tail(run_dir, "").splitlines()[:-1] == [f"line {n}" for n in range(984, 999)]


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
