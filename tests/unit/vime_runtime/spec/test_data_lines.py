from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.data_lines import DataLine, parse_line, read_lines
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

CHAT = '[{"role": "user", "content": "a"}]'


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"q": "ab", "a": "c"}\n\n{"q": "é", "a": "", "more": 1}\n')
    lines = list(read_lines(DataTable(path=str(path), prompt_key="q", label_key="a")))
    assert lines == [DataLine(f"{path}:1", "ab", "c"), DataLine(f"{path}:3", "é", "")]


def test_a_missing_or_empty_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with pytest.raises(UsageError, match="no data file at"):
        list(read_lines(DataTable(path=str(path))))
    path.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        list(read_lines(DataTable(path=str(path))))


def test_messages_need_a_chat_template() -> None:
    line = f'{{"prompt": {CHAT}, "label": "b"}}'.encode()
    parsed = parse_line(line, "d:1", DataTable(path="d", apply_chat_template=True))
    assert parsed.prompt == [{"role": "user", "content": "a"}]
    with pytest.raises(UsageError, match="needs the model's chat template"):
        parse_line(line, "d:1", DataTable(path="d"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "a", "label"', "not JSON"),
        (b'{"prompt": "\xff", "label": "b"}', "not JSON"),
        (b"[1, 2]", "expected a JSON object, found list"),
        (b'{"prompt": "a"}', "no key 'label'; keys found: prompt"),
        (b'{"prompt": "a", "label": 1}', "'label' should be text"),
        (b'{"prompt": [], "label": "b"}', "'prompt' should be text or a list of"),
        (b'{"prompt": [{"role": "user"}], "label": "b"}', "'prompt' should be text or a list of"),
    ],
)
def test_a_bad_line_is_an_error_that_says_where(line: bytes, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_line(line, "d:7", DataTable(path="d"))
    assert error.value.message.startswith(f"d:7: {message}")
    assert error.value.hint
