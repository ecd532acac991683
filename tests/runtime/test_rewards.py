from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from vime_runtime import rewards
from vime_runtime.errors import InputError


@pytest.mark.parametrize(
    ("response", "label", "reward"),
    [("42", "42", 1.0), (" 42\n", "42", 1.0), ("42.", "42", 0.0), ("", "42", 0.0), ("A b", "A b", 1.0)],
)
def test_exact_match(response: str, label: str, reward: float) -> None:
    assert rewards.get("exact-match")(response, label) == reward


@pytest.mark.parametrize(
    ("response", "label", "reward"),
    [
        ("So the answer is 1/2", "0.5", 1.0),
        (r"$x = \frac{3}{6}$", r"\frac{1}{2}", 1.0),
        (r"Hence \boxed{\sqrt{8}}", r"2\sqrt{2}", 1.0),
        (r"\boxed{x^2+2x+1}", "$(x+1)^2$", 1.0),
        (r"The points are $(1, 2)$", "(1,2)", 1.0),
        ("3 and 4 make 8", "7", 0.0),
        ("I do not know", "7", 0.0),
        ("", "7", 0.0),
    ],
)
def test_math_verify(response: str, label: str, reward: float) -> None:
    assert rewards.get("math-verify")(response, label) == reward


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's module with a package name of this test's own, importable while the test runs."""
    (tmp_path / "own_rewards.py").write_text(
        "def length(response, label):\n    return len(response) / len(label)\n"
        "def unsure(response, label):\n    return float('nan')\n"
        "def one_argument(response):\n    return 1.0\n"
        "table = {}\n"
    )
    (tmp_path / "broken_rewards.py").write_text("raise RuntimeError('no luck')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_rewards"
    for name in ("own_rewards", "broken_rewards"):
        sys.modules.pop(name, None)


def test_own_function(own_module: str) -> None:
    assert rewards.get(f"{own_module}:length")("ab", "abcd") == 0.5


def test_own_function_must_return_a_finite_number(own_module: str) -> None:
    with pytest.raises(ValueError, match="returned nan"):
        rewards.get(f"{own_module}:unsure")("a", "b")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exact", "unknown reward 'exact'"),
        ("no_such_package:f", "importing no_such_package failed: ModuleNotFoundError"),
        ("broken_rewards:f", "importing broken_rewards failed: RuntimeError: no luck"),
        ("own_rewards:nothing", "no such name"),
        ("own_rewards:table", "expected a function, found a dict"),
        ("own_rewards:one_argument", "cannot be called with"),
    ],
)
def test_a_reward_that_cannot_be_used_is_refused_at_once(own_module: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        rewards.get(name)
    assert error.value.hint
