"""The task of the default recipe: say which of two numbers is larger, "larger of 37 and 52 = " -> "52".

A small model learns it from nothing in seconds, and every answer can be verified by comparing text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

DIGITS = [str(digit) for digit in range(10)]

# What a prompt or an answer is made of; each becomes one token.
WORDS = ["larger", " of ", " and ", " = ", *DIGITS]


@dataclass(frozen=True)
class Example:
    """A prompt and an answer to it; the right one unless somebody meant it not to be."""

    prompt: str
    label: str


def examples(digits: int) -> list[Example]:
    """Every question about two numbers of ``digits`` digits, with the right answer."""
    return [
        Example(f"larger of {a} and {b} = ", str(max(a, b))) for a, b in product(_numbers(digits), repeat=2)
    ]


def draw(pool: list[Example], right: float, digits: int, rng: random.Random) -> Iterator[Example]:
    """Draw from ``pool`` without end, with the label kept in a share ``right`` of the draws.

    The other labels are any number at all, so that a wrong answer is not one of a few.
    """
    numbers = _numbers(digits)
    while True:
        example = rng.choice(pool)
        kept = rng.random() < right
        yield example if kept else Example(example.prompt, str(rng.choice(numbers)))


def _numbers(digits: int) -> range:
    # No leading zeros: every number of a prompt has the same count of tokens.
    return range(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
