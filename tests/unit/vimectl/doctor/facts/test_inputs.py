"""Reward functions as users define them; nothing is imported."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.inputs import read_reward_function
from vimectl.util.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(package_directories=(str(tmp_path),))


@pytest.mark.parametrize(
    "code",
    [
        "def reward(answer, label): return 1",
        "async def reward(answer, label): return 1",
        "try:\n    from fast import reward\nexcept ImportError:\n    def reward(a, b): return 1",
        "import sys\nif sys.version_info > (3, 0):\n    def reward(a, b): return 1\nelse:\n    reward = None",
        "from collections.abc import Callable\nreward: Callable = print",
        "from other import score as reward",
        "import other.reward as reward",
        "class reward:\n    pass",
        "with open('/dev/null') as reward:\n    pass",
        "def make():\n    global reward\n    def reward(a, b): return 1\nmake()",
        "raise SystemExit\ndef reward(): pass",
    ],
)
def test_a_defined_function_is_found(host: Host, tmp_path: Path, code: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    assert read_reward_function(host, "mine", "reward") == f"{tmp_path}/mine.py has reward"


def test_a_method_needs_its_class(host: Host, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("class Rater:\n    def score(self): pass")
    assert read_reward_function(host, "pkg", "Rater.score").endswith("has Rater.score")


@pytest.mark.parametrize(
    "code",
    [
        "",
        "print(reward)",
        "def use(reward): return reward",
        "class A:\n    def reward(self): pass",
        "x.reward = 1",
    ],
)
def test_a_function_that_is_not_defined_is_an_error(host: Host, tmp_path: Path, code: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UsageError, match=r"mine\.py has no reward") as error:
        read_reward_function(host, "mine", "reward")
    assert error.value.hint.startswith("correct data.reward, or define reward in ")


@pytest.mark.parametrize("code", ["from other import *", "def __getattr__(name): return print"])
def test_names_that_only_an_import_shows_are_not_refused(host: Host, tmp_path: Path, code: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(Unavailable, match="imports names that only an import shows"):
        read_reward_function(host, "mine", "reward")


@pytest.mark.parametrize("name", ["mine.cpython-311-x86_64-linux-gnu.so", "__editable___mine_finder.py"])
def test_modules_that_are_no_python_file_are_not_refused(host: Host, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(Unavailable, match="only its import shows reward"):
        read_reward_function(host, "mine", "reward")


def test_a_missing_module_and_a_syntax_error_are_errors(host: Host, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no module mine in 2 directories"):
        read_reward_function(host, "mine", "reward")
    (tmp_path / "mine.py").write_text("def reward(:")
    with pytest.raises(UsageError, match=r"mine\.py: invalid syntax"):
        read_reward_function(host, "mine", "reward")
