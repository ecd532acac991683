from __future__ import annotations

import pytest

from harness.patches.compare_with_git import compare

FIRST = [*range(0, 200, 50), *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(200, 10_000, 50))]


@pytest.mark.parametrize("first", FIRST)
def test_random_patches_apply_as_with_git(first: int) -> None:
    verdicts = [compare(seed) for seed in range(first, first + 50)]
    assert [what for verdict, what in verdicts if verdict == "disagree"] == []
    assert {how for _, how in verdicts} >= {"applied", "refused"}
