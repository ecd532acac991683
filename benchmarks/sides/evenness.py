"""The reward of both sides. Few responses have the same, so there are gradients, and moments to keep."""

from __future__ import annotations


def evenness(response: str, label: str) -> float:
    """The share of tokens with an even number; ``label`` does not matter."""
    numbers = [int(word.removeprefix("t")) for word in response.split()]
    return sum(number % 2 == 0 for number in numbers) / max(len(numbers), 1)
