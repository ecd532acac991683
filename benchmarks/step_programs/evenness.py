"""The reward of both programs. Rewards rarely tie, so there are gradients."""

from __future__ import annotations


def evenness(response: str, label: str) -> float:
    """Return the fraction of tokens with an even number; ``label`` is ignored."""
    numbers = [int(word.removeprefix("t")) for word in response.split()]
    return sum(number % 2 == 0 for number in numbers) / max(len(numbers), 1)
