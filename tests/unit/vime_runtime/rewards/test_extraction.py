from __future__ import annotations

import pytest
from vime_runtime.rewards.extraction import equal_numbers, equal_texts, last_number, tagged


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("4 + 5 = 9", "9"),
        ("It is 1,234.5.", "1234.5"),
        ("that makes -3", "-3"),
        ("that makes \u22123", "-3"),
        ("5-3", "3"),
        ("(2)-1", "1"),
        ("9, I think", "9"),
        ("about .5", ".5"),
        ("and so... 5", "5"),
        ("version 1.5.3", "3"),
        ("1.5e10 times", "1.5e10"),
        ("1e\u22123", "1e-3"),
        ("a probability of 3/4.", "3/4"),
        ("minus \u22123/4", "-3/4"),
        ("10/5 = 2", "2"),
        ("It costs $1,000.", "1000"),
        (r"It costs \$1,000.", "1000"),
        ("a loss of -$5", "-5"),
        ("1,2345", "2345"),
        ("50%", "50"),
        ("nine", None),
        ("", None),
    ],
)
def test_the_last_number(response: str, answer: str | None) -> None:
    assert last_number(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>3</think>\n<answer> 4\n5 </answer>.", "4\n5"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<answer>1 <answer>2</answer>", "2"),
        ("<answer>1</answer> <answer>2", "1"),
        ("<answer>1</answer> </answer>", "1"),
        ("<answer>1", None),
        ("1</answer>", None),
    ],
)
def test_the_tagged_answer(response: str, answer: str | None) -> None:
    assert tagged(response) == answer


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("18", "18.00"),
        ("1234", "1,234"),
        ("1000", "$1,000"),
        ("1000", r"\$1,000.00"),
        (".5", "0.5"),
        ("0.5", "1/2"),
        ("3/4", "0.75"),
        ("1/3", "2/6"),
        ("1.5e10", "15000000000"),
        ("-3", "\u22123"),
        ("5", "+5"),
        ("0", "-0"),
        ("50", "50%"),
        ("007", "7"),
        ("0.1", "1e-1"),
        ("3/0", "3/0"),
        ("7", " 7\n"),
        ("1e999999999", "1e999999999"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_equal_numbers(answer: str, label: str) -> None:
    assert equal_numbers(answer, label)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("18", "18.01"),
        ("3", "3/0"),
        ("0.333333333333333333", "1/3"),
        ("5", "-5"),
        ("5", "five"),
        ("5", "5 apples"),
        ("1e999999999", "1e999999998"),  # such a power of ten would not fit into memory
        ("9" * 5000, "9" * 4999),
        ("0", ""),
    ],
)
def test_unequal_numbers(answer: str, label: str) -> None:
    assert not equal_numbers(answer, label)


@pytest.mark.parametrize(
    ("response", "label", "equal"),
    [
        ("42", "42", True),
        (" 42\n", "42", True),
        ("42.", "42", False),
        ("42.0", "42", False),
        ("", "42", False),
        ("A b", "A b", True),
    ],
)
def test_texts_are_equal_apart_from_white_space_at_the_ends(response: str, label: str, equal: bool) -> None:
    assert equal_texts(response, label) == equal
