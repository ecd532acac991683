"""Project files: what they extend, what they change, and how they are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.stacks.catalog import (
    KEYS,
    default_stack,
    lineage,
    load_stack,
    load_summary,
    lock_path,
    required_stack,
    stack_for_recipe,
)
from vimectl.stacks.schema import Stack


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a project, which is the working directory."""
    directory = tmp_path / "Our Team" / "nested"
    directory.mkdir(parents=True)
    monkeypatch.chdir(directory)
    monkeypatch.delenv("VIMECTL_STACK", raising=False)
    return directory.parent


def write(file: Path, text: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


PROJECT = """
extends = "ascend-0.22"
[packages]
vllm-ascend = "0.22.1rc2"
ray = "2.60.0"
[patches]
vllm = ["0.22.1", "patches/vllm"]
vllm-ascend = []
transformers = ["mine", "/abs/series", "./1.0"]
[targets]
megatron-lm = "../Megatron-LM"
"""


def test_project_changes_what_it_states(project: Path) -> None:
    file = write(project / "vimectl.toml", PROJECT)
    summary, stack, base = load_summary(file), load_stack(file), load_summary("ascend-0.22")
    assert summary.packages == base.packages | {"vllm-ascend": "0.22.1rc2", "ray": "2.60.0"}
    assert summary.ranges == {name: base.ranges[name] for name in base.ranges if name != "ray"}
    assert summary.patches == {
        "vllm": ("0.22.1", str(project / "patches/vllm")),
        "vllm-ascend": (),
        "transformers": (str(project / "mine"), "/abs/series", str(project / "1.0")),
    }
    assert summary.targets == {"megatron-lm": project.parent / "Megatron-LM"}
    assert (stack.name, stack.title) == ("our-team", "our-team (extends ascend-0.22)")
    assert stack.argument == file
    assert stack.patches == {name: list(entries) for name, entries in summary.patches.items() if entries}
    assert stack.cann == load_stack("ascend-0.22").cann
    assert stack.source("vllm-ascend") == "stated in the project file"


def test_chain_merges_in_order_with_paths_relative_to_each_file(project: Path) -> None:
    write(project / "shared/base.toml", 'extends = "cpu-0.32"\n[patches]\nvllm = ["fixes"]\nray = ["ray"]\n')
    file = write(project / "vimectl.toml", 'extends = "shared/base.toml"\n[patches]\nray = []\n')
    assert load_summary(file).patches == {
        "megatron-core": ("0.16.1",),
        "vllm": (str(project / "shared/fixes"),),
        "ray": (),
    }
    assert lineage(file) == [file, str(project / "shared/base.toml"), "cpu-0.32"]
    assert lock_path(file) == lock_path("cpu-0.32")
    own = project / "vimectl.txt"
    own.touch()
    assert lock_path(file) == own


def test_project_without_extends_has_patches_but_is_no_whole_stack(project: Path) -> None:
    file = write(project / "vimectl.toml", '[patches]\ntransformers = ["patches/transformers"]\n')
    assert load_summary(file).patches == {"transformers": (str(project / "patches/transformers"),)}
    with pytest.raises(UsageError, match="extends no stack") as error:
        load_stack(file)
    assert 'extends = "ascend-0.22"' in error.value.hint


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[patchs]", ["unknown key 'patchs'. Did you mean patches"]),
        ('[patches]\nvllm = "0.22.1"', ["'patches.vllm': expected a list", "found '0.22.1'"]),
        ("[patches]\nvllm = [1]", ["'patches.vllm': expected a list"]),
        ("[packages]\nvllm = 1\n[targets]\na = []", ["'packages.vllm': expected a text", "'targets.a'"]),
        ("patches = 1\nextends = 1", ["'patches': expected a table", "'extends': expected a stack's name"]),
        ('extends = "ascend-0.2"', ["extends: unknown stack 'ascend-0.2'. Did you mean ascend-0.2"]),
        ('extends = "none.toml"', ["none.toml: no such file"]),
        ("[patches", ["not valid TOML"]),
    ],
)
def test_mistake_is_named_with_the_file(project: Path, text: str, messages: list[str]) -> None:
    file = write(project / "vimectl.toml", text)
    with pytest.raises(UsageError) as error:
        load_summary(file)
    assert error.value.message.startswith(file)
    for message in messages:
        assert message in error.value.message


def test_files_that_extend_each_other_are_refused(project: Path) -> None:
    write(project / "b/other.toml", 'extends = "../vimectl.toml"')
    file = write(project / "vimectl.toml", 'extends = "b/other.toml"')
    with pytest.raises(UsageError, match="cannot extend itself"):
        load_summary(file)


def test_wrong_value_outside_the_package_tables_is_found_by_the_schema(project: Path) -> None:
    file = write(project / "vimectl.toml", 'extends = "ascend-0.22"\n[image]\npython = "2.7"\n')
    with pytest.raises(UsageError, match=r"vimectl\.toml: 'image\.python'"):
        load_stack(file)


def test_default_is_the_variable_then_the_nearest_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_stack() is None
    with pytest.raises(UsageError, match=r"no vimectl\.toml here or above"):
        required_stack(None)
    file = write(project / "vimectl.toml", 'extends = "ascend-0.22"')
    assert default_stack() == required_stack(None) == file
    assert required_stack("cpu-0.32") == "cpu-0.32"
    nearer = write(project / "nested/vimectl.toml", 'extends = "cpu-0.32"')
    assert default_stack() == nearer
    monkeypatch.setenv("VIMECTL_STACK", "ascend-0.23")
    assert default_stack() == "ascend-0.23"


def test_recipe_uses_the_project_that_extends_its_stack(project: Path) -> None:
    file = write(project / "vimectl.toml", 'extends = "ascend-0.22"')
    assert stack_for_recipe("ascend-0.22") == file
    assert stack_for_recipe("cpu-0.32") == "cpu-0.32"


def test_keys_are_those_of_the_schema() -> None:
    assert set(Stack.model_fields) == KEYS


def test_packages_of_a_project_are_read_without_the_schema(project: Path) -> None:
    write(project / "vimectl.toml", PROJECT)
    code = (
        "import sys; from vimectl.stacks.catalog import *; load_summary(default_stack());"
        "print([name for name in ('pydantic', 'tomlkit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.stdout, done.stderr) == ("[]\n", "")
