from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.data_lines import is_parquet, parse_line, parse_row, read_lines
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

CHAT = '[{"role": "user", "content": "a"}]'


def read(path: Path, content: bytes, **keys: Any) -> list[tuple[str, Any, str]]:
    path.write_bytes(content)
    table = DataTable.model_validate({"path": str(path)} | keys)
    return [(line.where, line.prompt, line.label) for line in read_lines(table)]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    content = '{"q": "ab", "a": "c"}\n\n{"q": "é", "a": "", "more": 1}\n'.encode()
    assert read(path, content, prompt_key="q", label_key="a") == [
        (f"{path}:1", "ab", "c"),
        (f"{path}:3", "é", ""),
    ]


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_the_text(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"prompt": "a", "label": "b"}\r\n\r\n{"prompt": "c", "label": "d"}'
    assert [line[1:] for line in read(tmp_path / "d", content)] == [("a", "b"), ("c", "d")]


def test_the_row_has_all_keys_of_the_line() -> None:
    line = parse_line(b'{"prompt": "a", "label": "b", "source": {"year": 2024}}', "d:1", DataTable(path="d"))
    assert line.row == {"prompt": "a", "label": "b", "source": {"year": 2024}}


def test_a_key_with_dots_is_that_of_a_nested_object() -> None:
    data = DataTable(path="d", label_key="reward_model.ground_truth")
    nested = {"prompt": "a", "reward_model": {"ground_truth": "4", "style": "rule"}}
    assert parse_row(nested, "d:1", data).label == "4"
    assert parse_row(nested | {data.label_key: "5"}, "d:1", data).label == "5"
    with pytest.raises(
        UsageError, match=r"no key 'reward_model.ground_truth'; keys found: prompt, reward_model"
    ):
        parse_row({"prompt": "a", "reward_model": "4"}, "d:1", data)


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ('"4"', "4"),
        ("4", "4"),
        ("-18.0", "-18.0"),
        ("0.1", "0.1"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_a_number_is_a_label(written: str, label: str) -> None:
    line = parse_line(f'{{"prompt": "a", "label": {written}}}'.encode(), "d:1", DataTable(path="d"))
    assert line.label == label


def test_a_missing_or_empty_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with pytest.raises(UsageError, match="no data file at"):
        list(read_lines(DataTable(path=str(path))))
    with pytest.raises(UsageError, match="is empty"):
        read(path, b"\n")


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
        (b'{\0"\0p\0r\0o\0m\0p\0t\0"\0:\0', "not JSON"),
        (b'{"prompt": "a\0", "label": "b"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prompt": "a", "label": ' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"prompt": "a", "prompt": "c", "label": "b"}', "not JSON: the key 'prompt' is there twice"),
        (b"[1, 2]", "expected a JSON object, found list"),
        (b'{"prompt": "a"}', "no key 'label'; keys found: prompt"),
        (b'{"prompt": "a", "label": null}', "'label' should be text or a number, found null"),
        (b'{"prompt": "a", "label": true}', "'label' should be text or a number, found bool"),
        (b'{"prompt": "a", "label": ["4"]}', "'label' should be text or a number, found list"),
        (b'{"prompt": "a", "label": NaN}', "'label' is nan"),
        (b'{"prompt": [], "label": "b"}', "'prompt' should be text or a list of"),
        (b'{"prompt": [{"role": "user"}], "label": "b"}', "'prompt' should be text or a list of"),
        (b'{"prompt": "", "label": "b"}', "'prompt' is empty"),
        (b'{"prompt": " \\n", "label": "b"}', "'prompt' is empty"),
        (
            b'{"prompt": "x\\ud800y", "label": "b"}',
            r"'prompt' has half of a character, \ud800, at position 1",
        ),
        (b'{"prompt": "a", "label": "\\udfff"}', r"'label' has half of a character, \udfff"),
    ],
)
def test_a_bad_line_is_an_error_that_says_where(line: bytes, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_line(line, "d:7", DataTable(path="d"))
    assert error.value.message.startswith(f"d:7: {message}")
    assert error.value.hint


def test_a_character_in_two_halves_is_whole() -> None:
    line = json.dumps({"prompt": "😀\0", "label": "b"}).encode()
    assert b"\\ud83d" in line
    assert parse_line(line, "d:7", DataTable(path="d")).prompt == "😀\0"


@pytest.mark.parametrize("content", ["", "x"])
def test_messages_without_text_are_empty(content: str) -> None:
    messages = [{"role": "user", "content": content, "name": None}]
    data = DataTable(path="d", apply_chat_template=True)
    if content:
        assert parse_row({"prompt": messages, "label": "b"}, "d:1", data).prompt == [
            {"role": "user", "content": "x"}
        ]
    else:
        with pytest.raises(UsageError, match=r"d:1: 'prompt' is empty"):
            parse_row({"prompt": messages, "label": "b"}, "d:1", data)


def test_parquet_is_known_by_its_name_or_its_first_bytes(tmp_path: Path) -> None:
    for name, content, expected in (("a.parquet", b"x", True), ("b", b"PAR1...", True), ("c", b"{}", False)):
        (tmp_path / name).write_bytes(content)
        assert is_parquet(tmp_path / name) is expected
