"""The task of the default recipe: write digits in reverse, "reverse 375 = " -> "573".

A small model learns it from nothing in seconds, knows it surely then, and every answer can be
verified by comparing text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

DIGITS = "0123456789"

# What a prompt or an answer is made of; each becomes one token.
WORDS = ["reverse ", " = ", *DIGITS]


@dataclass(frozen=True)
class Example:
    """A prompt and an answer to it; the right one unless somebody meant it not to be."""

    prompt: str
    label: str


def examples(digits: int) -> list[Example]:
    """Every prompt with ``digits`` digits, with the right answer; all have equally many tokens."""
    return [
        Example(f"reverse {''.join(text)} = ", "".join(reversed(text)))
        for text in product(DIGITS, repeat=digits)
    ]


def draw(pool: list[Example], right: float, rng: random.Random) -> Iterator[Example]:
    """Draw from ``pool`` without end, with the label kept in a share ``right`` of the draws.

    The other labels are any digits at all, so that a wrong answer is not one of a few.
    """
    while True:
        example = rng.choice(pool)
        kept = rng.random() < right
        yield example if kept else Example(example.prompt, _any_digits(len(example.label), rng))


def _any_digits(count: int, rng: random.Random) -> str:
    return "".join(rng.choices(DIGITS, k=count))
