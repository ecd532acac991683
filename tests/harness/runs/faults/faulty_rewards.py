"""Reward functions with a fault."""

import sys


def key_error(response: str, label: str) -> float:
    return {}[label]


def system_exit(response: str, label: str) -> float:
    sys.exit(3)


def not_a_number(response: str, label: str) -> float:
    return float("nan")
