"""Each tutorial is followed as a reader would: its commands, its files, and the output that it shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness import REPOSITORY
from harness.checkout import copy_checkout
from harness.code_blocks import code_blocks, shell_commands
from harness.git import ENVIRONMENT as GIT
from harness.git import commit
from harness.runs.recipe_run import run_recipe
from harness.tutorial import follow, matches
from vimectl.env.vimectl_wheel import make_wheel

TUTORIALS = REPOSITORY / "docs" / "tutorial"
HOME_OF_THE_PROJECT = "https://github.com/vimectl/vimectl"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a reader, who gets vimectl from this checkout instead of the internet.

    `pip install vimectl` installs the wheel of this checkout, and `git clone` of the project's home a copy.
    """
    pytest.importorskip("hatchling", reason="builds the wheel of a checkout")
    folder = tmp_path_factory.mktemp("published")
    source = copy_checkout(folder / "source")
    commit(source)
    constraints = folder / "constraints.txt"
    constraints.write_text(f"vimectl @ {make_wheel(folder).as_uri()}\n")
    own = {
        name: value
        for name, value in os.environ.items()
        if name != "VIRTUAL_ENV" and not name.startswith(("MAKE", "VIMECTL_"))
    }
    return {
        **own,
        **GIT,
        "PIP_CONSTRAINT": str(constraints),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{source.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": HOME_OF_THE_PROJECT,
    }


@pytest.mark.needs("network")
def test_first_patch(reader: dict[str, str], tmp_path: Path) -> None:
    done = follow(TUTORIALS / "first-patch.md", tmp_path, reader)
    assert any(command.startswith("vimectl patch revert") for command in done)


@pytest.mark.exhaustive  # it installs the environment twice: five minutes
@pytest.mark.needs("network")
def test_quick_start(reader: dict[str, str], tmp_path: Path) -> None:
    done = follow(TUTORIALS / "quick-start.md", tmp_path, reader)
    assert {"make run", "tool/bin/vimectl env create .venv --stack cpu-0.32"} <= set(done)


@pytest.mark.slow
def test_own_model(reader: dict[str, str], tmp_path: Path) -> None:
    """The reader has followed the quick start: its environment is active, and it has made a short run."""
    quick = run_recipe(tmp_path / "vimectl" / "runs" / "smoke", "--mode", "smoke")
    assert quick.code == 0, quick.output
    path = f"{Path(sys.executable).parent}{os.pathsep}{reader['PATH']}"
    done = follow(TUTORIALS / "own-model.md", tmp_path, reader | {"PATH": path}, "vimectl")
    assert any("--resume" in command for command in done)


def test_numbers_may_differ_and_words_may_not() -> None:
    assert matches("step 1/30  reward 0.336", "step 1/30\treward 0.4\n")
    assert matches("a\n...\nstep 2/30 ... left 0:13", "a\nb\nc\nstep 2/4 reward 0.1  left 0:02\n")
    assert matches("...", "")
    assert not matches("step 1/30  reward 0.336", "step 1/30  score 0.336\n")
    assert not matches("a\nc", "a\nb\nc\n")
    assert not matches("a\n...\nc", "a\nb\n")
    assert not matches("a", "a\nb\n")


def test_commands_and_files_of_a_page_are_found() -> None:
    page = (
        "```console\n$ a \\\n>   b\nout\n$ c\n```\n\n```sh\n# comment\n\nd \\\n  e\nf\n```\n"
        '  ```toml title="x.toml"\n  k = 1\n  ```\n'
    )
    console, sh, file = code_blocks(page)
    assert [(c.line, c.text, c.output) for c in shell_commands(console)] == [
        (2, "a \\\n  b", ("out",)),
        (5, "c", ()),
    ]
    assert [(c.line, c.text, c.output) for c in shell_commands(sh)] == [
        (11, "d \\\n  e", None),
        (13, "f", None),
    ]
    assert (file.title, file.lines) == ("x.toml", ("k = 1",))


def test_every_tutorial_is_followed_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    pages = sorted(path.name for path in TUTORIALS.glob("*.md"))
    assert pages == ["first-patch.md", "own-model.md", "quick-start.md"]
    assert [page for page in pages if f'"{page}", tmp_path' not in here] == []
