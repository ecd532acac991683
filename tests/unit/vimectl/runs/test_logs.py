from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.runs import logs


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "logs" / "ray").mkdir(parents=True)
    for name in ("driver.log", "trainer-1.log", "engine-0.log", "ray/raylet.out"):
        (tmp_path / "logs" / name).write_text(f"{name} speaks\n")
    for engine in (0, 1, 10):
        for rank in range(2):
            log = f"engine-{engine}-worker-{rank}.log"
            (tmp_path / "logs" / log).write_text(f"{log} speaks\n")
    (tmp_path / "logs" / "trainer-0.log").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("reason", "log"),
    [
        ("trainer rank 1 (process 77) was killed by signal 9", "trainer-1.log"),
        ("Trainer 1 is out of memory", "trainer-1.log"),
        ("engine worker 1 (pid 77) was killed", "engine-0-worker-1.log"),
        ("engine worker 4 (pid 77) was killed", "engine-10-worker-0.log"),
        ("engine worker 9 has no log", "driver.log"),
        ("engine 0 was killed", "engine-0.log"),
        ("the raylet is gone", "ray/raylet.out"),
        ("trainer rank 0 has written nothing", "driver.log"),
        ("engine 7 has no log", "driver.log"),
        ("the label is odd", "driver.log"),
    ],
)
def test_the_log_of_the_process_that_is_named_is_shown(run_dir: Path, reason: str, log: str) -> None:
    shown = logs.ending(run_dir, reason).splitlines()
    assert shown[0] == f"{log} speaks"
    assert shown[1] == f"the whole log: {run_dir}/logs/{log}"


def test_only_the_end_is_shown(run_dir: Path) -> None:
    (run_dir / "logs" / "driver.log").write_text("".join(f"line {n}\n" for n in range(999)))
    assert logs.ending(run_dir, "").splitlines()[:-1] == [f"line {n}" for n in range(984, 999)]


def test_rays_logs_are_kept_as_far_as_they_say_something(tmp_path: Path) -> None:
    session = tmp_path / "scratch" / "ray" / "session_latest" / "logs"
    session.mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    texts = {"raylet.out": "x" * 2**21 + "end", "gcs_server.err": "", "worker-1.err": "no such module"}
    for name, text in texts.items():
        (session / name).write_text(text)
    logs.keep_ray(tmp_path / "scratch", tmp_path)
    kept = {path.name: path.read_text() for path in (tmp_path / "logs" / "ray").iterdir()}
    assert kept.keys() == {"raylet.out", "worker-1.err"}
    assert kept["worker-1.err"] == "no such module"
    assert len(kept["raylet.out"]) == 2**20
    assert kept["raylet.out"].endswith("end")


def test_without_ray_there_is_nothing_to_keep(tmp_path: Path) -> None:
    logs.keep_ray(tmp_path / "nowhere", tmp_path)
    assert not (tmp_path / "logs").exists()
