"""SECURITY.md: what it says about files and permissions."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.regular_files import MAX_BYTES
from vime_runtime.spec.run_paths import RUNS, SCRATCH_PREFIX

from harness import REPOSITORY
from vimectl.env.memory_saver import known_builds
from vimectl.patches import own_changes
from vimectl.patches.applied_state import FOLDER
from vimectl.recipes.catalog import find_recipe
from vimectl.recipes.resolve import load_recipe
from vimectl.releases.index import release_cache
from vimectl.runs import npu_notice
from vimectl.util.scratch_directory import scratch_directory

PAGE = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_page_is_linked(page: str) -> None:
    assert "(SECURITY.md)" in (REPOSITORY / page).read_text(encoding="utf-8")


def test_folders_of_the_user_are_those_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
    marker = npu_notice._marker(load_recipe(find_recipe("qwen3-tiny-tp2")))
    used = (own_changes.folder(), marker.parent, release_cache().parent, known_builds.user_builds_file())
    listed = set(re.findall(r"^\| `~/(\S+)` \|", PAGE, re.MULTILINE))
    assert listed == {path.relative_to(tmp_path).as_posix() for path in used}


def test_folders_elsewhere_are_those_of_the_code() -> None:
    for place in (f"`{RUNS}/NAME`", f"`/tmp/{SCRATCH_PREFIX}XXXXXXXX`", f"`{FOLDER}/`"):
        assert f"| {place} " in PAGE


def test_private_folders_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    own_changes.remember("0" * 32, [tmp_path], [b"journal"])
    with scratch_directory(tmp_path / "scratch"):
        for folder in (tmp_path / "scratch", own_changes.folder()):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in own_changes.folder().iterdir()} == {0o600}


def test_limits_and_keys_are_those_of_the_code() -> None:
    assert f"up to {MAX_BYTES // 2**20} MiB" in PAGE
    recipe = Recipe.model_json_schema()
    for table, key in re.findall(r"`(data|watch|prepare)\.(\w+)", PAGE):
        reference = str(recipe["properties"][table]).partition("#/$defs/")[2].partition("'")[0]
        assert key in recipe["$defs"][reference]["properties"], (table, key)
