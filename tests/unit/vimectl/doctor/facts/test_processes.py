from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimectl.doctor.facts.processes import format_ports, parse_ports, read_ports
from vimectl.util.host import Host

# As Linux 6.1 prints it: Ray's 6379 and HCCL's 60000 listen, 60001 is only connected.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 7 1
   1: 0100007F:EA60 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 8 1
   2: 0100007F:EA61 0100007F:18EB 01 00000000:00000000 00:00000000 00000000  1000        0 9 1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:EA65 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


def test_listening_ports_of_both_families_are_read(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/tcp").write_text(TCP)
    (tmp_path / "proc/net/tcp6").write_text(TCP6)
    assert read_ports(Host(tmp_path)) == {6379, 60000, 60001, 60005}
    assert read_ports(Host(tmp_path), listening=True) == {6379, 60000, 60005}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("60000-60002", [60000, 60001, 60002]),
        ("60000,60010-60011", [60000, 60010, 60011]),
        ("60000-60000", [60000]),
        ("60000,60000-60001", [60000, 60000, 60001]),
        ("60002-60000", None),
        ("0-5", None),
        ("60000-70000", None),
        ("60000 - 60050", None),
        ("60000-", None),
        ("", None),
        ("many", None),
    ],
)
def test_port_lists_are_parsed_like_cann(text: str, found: list[int] | None) -> None:
    assert parse_ports(text) == found


@given(st.sets(st.integers(1, 65535), min_size=1, max_size=50))
def test_formatted_ports_parse_to_the_same(numbers: set[int]) -> None:
    assert parse_ports(format_ports(numbers)) == sorted(numbers)
