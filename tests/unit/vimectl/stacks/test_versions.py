from __future__ import annotations

import pytest

from vimectl.stacks.versions import distance, matches, relation, within


@pytest.mark.parametrize(
    ("installed", "wanted", "expected"),
    [
        ("0.22.1rc1", "0.22.1rc1", "same"),
        ("0.22.1rc1.dev263+g967c5c3bc", "0.22.1rc1", "older"),
        ("0.22.1rc1.dev263+g967c5c3bc", "0.21.0rc1", "newer"),
        ("0.22.1rc1+g967c5c3bc", "0.22.1rc1", "same"),
        ("2.10.0.post4", "2.10.0", "newer"),
        ("2.10.0.post2", "2.10.0.post4", "older"),
        ("2.10.0+cpu", "2.10.0", "same"),
        ("2.13.0+cpu", "2.13.0+cpu", "same"),
        ("2.13.0", "2.13.0+cpu", "other"),
        ("2.9.0.post1+git4c901a4", "2.9.0.post1+git4c901a4", "same"),
        ("2.9.0.post1", "2.9.0.post1+git4c901a4", "other"),
        ("2.9.0", "2.9.0.post1+git4c901a4", "older"),
        ("3.2.0.dev20260322", "3.2.0", "older"),
        ("9.1.RC1", "9.1.0", "older"),
        ("9.1.0", "9.1.RC1", "newer"),
        ("9.1.rc1", "9.1.RC1", "same"),
        ("8.3.RC2.alpha", "8.3.RC2", "other"),
        ("garbage", "1.0", "other"),
    ],
)
def test_relation(installed: str, wanted: str, expected: str) -> None:
    assert relation(installed, wanted) == expected
    assert matches(installed, wanted) is (expected == "same")


def test_range_of_versions() -> None:
    assert within("2.48.0", ">=2.47.1,<=2.48.0")
    assert not within("2.60.0", ">=2.47.1,<=2.48.0")
    assert within("5.5.4+local", "==5.5.4")
    assert not within("garbage", ">=1")


def test_distance_compares_the_release_line_first() -> None:
    near = ["0.23.0", "0.23.0rc1", "0.23.1", "0.22.9", "0.30.0rc2", "1.0", "garbage"]
    assert sorted(near, key=lambda version: distance("0.23.0", version)) == near
