from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.util.cpu_list import allowed_cpus, parse_cpu_list
from vimectl.util.host import Host


@pytest.mark.parametrize(("text", "cpus"), [("3", [3]), ("0-3,8,10-11", [0, 1, 2, 3, 8, 10, 11])])
def test_cpu_list_is_parsed(text: str, cpus: list[int]) -> None:
    assert parse_cpu_list(text) == cpus


def test_allowed_cpus_come_from_proc_status(tmp_path: Path) -> None:
    assert allowed_cpus(Host(tmp_path, {})) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tpython\nCpus_allowed_list:\t0-1\nMems:\t0\n")
    assert allowed_cpus(Host(tmp_path, {})) == [0, 1]
