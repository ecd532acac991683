"""Extract the answer from a response, and compare answers as texts or as numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

# Digits with or without commas between groups of three, decimals, exponent. A period that follows a word or
# another period does not begin a number, and one that no digit follows ends a sentence.
_DECIMAL = r"(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|(?<![\w.])\.\d+)(?:[eE][-+\u2212]?\d+)?"
# A minus is a sign unless it follows an operand: "5-3" ends in 3. "3/4" is one number.
_NUMBER = re.compile(rf"(?:(?<![\w)])[-\u2212])?(?:\\?\$)?{_DECIMAL}(?:/{_DECIMAL})?")
# A label is a number with at most a sign, a currency and a percent sign.
_LABEL = re.compile(rf"[-+\u2212]?(?:\\?[$€£¥])?{_DECIMAL}(?:/{_DECIMAL})?(?:\s?\\?%)?")
_OPEN, _CLOSE = "<answer>", "</answer>"
# Longer numbers, and larger exponents, are compared as texts: a power of ten takes memory and time.
_MAX_DIGITS = 1000
_MAX_EXPONENT = 1000


def last_number(response: str) -> str | None:
    """Return the last number in a text, without commas and currency, with an ASCII minus.

    >>> last_number("It costs $1,234.50, not \u22123/4.")
    '-3/4'
    """
    found = _NUMBER.findall(response)
    return _plain(found[-1]) if found else None


def tagged(response: str) -> str | None:
    """Return the text between the last ``<answer>`` and ``</answer>``."""
    start = response.rfind(_OPEN, 0, response.rfind(_CLOSE) + 1)
    if start < 0:
        return None
    start += len(_OPEN)
    return response[start : response.index(_CLOSE, start)].strip()


ANSWERS: dict[str, Callable[[str], str | None]] = {
    "whole": lambda response: response,
    "last-number": last_number,
    "tag": tagged,
}


def equal_texts(answer: str, label: str) -> bool:
    """Return True for equal texts, apart from white space at the ends."""
    return answer.strip() == label.strip()


def equal_numbers(answer: str, label: str) -> bool:
    """Return True if both are the same number, computed exactly, or equal texts."""
    if equal_texts(answer, label):
        return True
    number = _value(answer)
    return number is not None and number == _value(label)


def _value(text: str) -> Fraction | None:
    """Return the number that a text consists of; None if it is none, or too large."""
    text = text.strip()
    if not _LABEL.fullmatch(text):
        return None
    parts = [_decimal(part) for part in _plain(text).split("/")]
    if None in parts or 0 in parts[1:]:
        return None
    return parts[0] / parts[1] if parts[1:] else parts[0]  # type: ignore[operator]


def _decimal(text: str) -> Fraction | None:
    exponent = re.search(r"[eE]([-+]?\d+)", text)
    if len(text) > _MAX_DIGITS or (exponent and abs(int(exponent[1])) > _MAX_EXPONENT):
        return None
    return Fraction(text)


def _plain(number: str) -> str:
    """Return a number without commas, currency and percent sign, with an ASCII minus."""
    return re.sub(r"[,$€£¥%\\\s]", "", number).replace("\u2212", "-")
