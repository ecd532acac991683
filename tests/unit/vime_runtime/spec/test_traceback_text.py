from __future__ import annotations

import traceback

import pytest
from vime_runtime.spec.traceback_text import exception_text, last_traceback, location, plain_lines


def frame(file: str) -> str:
    return f'  File "{file}", line 3, in f'


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["/src/runtime/vime_runtime/a.py", "/home/user/reward.py", "/x/lib/python3.11/json/__init__.py"], 1),
        (["/src/runtime/vime_runtime/a.py", "/x/site-packages/vllm/a.py"], 0),
        (["/x/lib/python3.11/site-packages/vime_runtime/a.py", "/vllm-workspace/vllm/vllm/v1/a.py"], 0),
        (["<frozen runpy>", "/x/site-packages/torch/a.py"], 1),
    ],
)
def test_location_is_in_the_users_code_if_possible(files: list[str], chosen: int) -> None:
    lines = ["Traceback (most recent call last):", *map(frame, files), "ValueError: odd"]
    assert location(lines) == f"{files[chosen]}:3 in f"


def test_last_traceback_of_a_chain_ends_with_its_message() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as e:
            raise ValueError("second\nwith a line more") from e
    except ValueError as e:
        text = "".join(traceback.format_exception(e))
    found = last_traceback(plain_lines("before\n" + text + "\nlater output\n"))
    assert found[0] == "Traceback (most recent call last):"
    assert exception_text(found) == "ValueError: second with a line more"
    assert all("first" not in line for line in found)


def test_colors_prefixes_and_progress_are_removed() -> None:
    text = "\x1b[1;36m(Worker_TP0 pid=7)\x1b[0;0m ERROR 11-30 21:08:09 [core.py:9] odd\n 1%\r 50%\r100%\nlast"
    assert plain_lines(text) == ["odd", "100%", "last"]


def test_text_without_a_traceback() -> None:
    assert last_traceback(["nothing"]) == []
    assert location([]) == ""
    assert exception_text([]) == ""
