from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.needs import mounted_disk
from vimectl.runs import summary as summaries
from vimectl.runs.run_log import RunLog
from vimectl.runs.run_statistics import run_statistics


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; fill it with ``fill``."""
    with mounted_disk(tmp_path / "disk", size="256k") as disk:
        yield disk


def fill(disk: Path) -> None:
    with (disk / "everything").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def test_reserved_space_holds_the_summary_on_a_full_disk(full_disk: Path) -> None:
    summaries.reserve(full_disk)
    fill(full_disk)
    assert summaries.write(full_disk, {"reason": "no room"})
    assert json.loads((full_disk / "summary.json").read_text()) == {"reason": "no room"}
    assert sorted(os.listdir(full_disk)) == ["everything", "summary.json"]


def test_summary_without_space_is_printed(full_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(full_disk)
    assert not summaries.write(full_disk, {"reason": "no room"})
    assert '"reason": "no room"' in capsys.readouterr().err
    assert not (full_disk / "summary.json").exists()


def test_statistics_ignore_missing_values(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "step": 1,
            "reward/mean": 0.25,
            "rollout/tokens": 30,
            "rollout/seconds": 2.0,
            "memory/peak_bytes": 7,
        },
        {
            "step": 2,
            "reward/mean": 0.75,
            "rollout/tokens": None,
            "rollout/seconds": 2.0,
            "evaluation/score": 0.5,
        },
        {
            "step": 3,
            "reward/mean": "high",
            "rollout/tokens": 10,
            "rollout/seconds": 0.0,
            "evaluation/score": 0.5,
        },
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = RunLog(tmp_path)
    log.read()
    assert run_statistics(log) == {
        "reward_first": 0.5,
        "reward_last": 0.5,
        "evaluation_first": 0.5,
        "evaluation_best": 0.5,
        "best_step": 2,
        "step_seconds_mean": None,
        "sync_seconds_mean": None,
        "tokens_per_second_mean": 15.0,
        "logprob_abs_diff_mean_worst": None,
        "peak_memory_bytes": 7,
    }
