from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.json_files import JsonLines


def test_half_a_line_of_a_killed_process_spoils_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    lines = JsonLines(path)
    lines.append({"step": 2})
    lines.append({"step": 3})
    lines.close()
    assert path.read_text().splitlines() == ['{"step": 1}', '{"st', '{"step": 2}', '{"step": 3}']


def test_a_full_disk_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    lines = JsonLines(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        lines.append({"step": 1})
