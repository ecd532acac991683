"""The project file that `vimectl init` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.git import commit
from vimectl.stacks.catalog import load_stack, load_summary
from vimectl.stacks.new_project import find_project
from vimectl.util.host import Host, run_command

SITE = "usr/local/lib/python3.11/site-packages"
ASCEND = {"vllm": "0.22.1", "vllm_ascend": "0.22.1rc1", "torch_npu": "2.10.0", "triton_ascend": "3.2.1"}


def machine(root: Path, **packages: str) -> Host:
    """Return a machine with the metadata directories of these distributions, which has git."""
    for name, version in packages.items():
        (root / SITE / f"{name}-{version}.dist-info").mkdir(parents=True)
    return Host(root, {}, run_command)


def work_tree(directory: Path, name: str = "") -> str:
    """Make a work tree of a Python project and return its commit."""
    directory.mkdir(parents=True)
    if name:
        (directory / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    (directory / "module.py").touch()
    return commit(directory)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


def test_file_extends_the_installed_stack_and_states_what_differs(tmp_path: Path, here: Path) -> None:
    host = machine(tmp_path / "root", **ASCEND, torch="2.10.0+cpu", ray="2.60.0")
    made = find_project(here, host)
    assert (made.extends, made.packages) == ("ascend-0.22", {"ray": "2.60.0"})
    text = made.text()
    assert 'ray = "2.60.0"  # ascend-0.22: >=2.47.1,<=2.48.0\n' in text
    assert find_project(here, host).text() == text
    made.file.write_text(text)
    assert load_stack(str(made.file)).packages["ray"] == "2.60.0"


def test_work_trees_become_targets_with_their_commits(tmp_path: Path, here: Path) -> None:
    commits = {
        "megatron-core": work_tree(here / "Megatron-LM", "megatron-core"),
        "mindspeed": work_tree(here / "MindSpeed"),
        "vllm": work_tree(here / "vllm"),
        "other": work_tree(here / "other"),
    }
    work_tree(here / "deep/er")
    made = find_project(here, machine(tmp_path / "root", **ASCEND, torch="2.10.0"))
    made.file.write_text(made.text())
    assert made.targets == {"megatron-core": "Megatron-LM", "mindspeed": "MindSpeed"}
    assert load_summary(str(made.file)).targets["mindspeed"] == here / "MindSpeed"
    lines = made.text().splitlines()
    assert f'mindspeed = "MindSpeed"  # at {commits["mindspeed"]}' in lines
    assert f'# vllm = "vllm"  # at {commits["vllm"]}; it is installed too' in lines
    assert f'# other = "other"  # at {commits["other"]}' in lines


def test_series_below_patches_go_on_top_of_those_of_the_stack(tmp_path: Path, here: Path) -> None:
    for name, about in {
        "vllm": "",
        "team/transformers": 'package = "transformers"',
        "torch/2.9": 'version = "2.9.0"',
    }.items():
        (here / "patches" / name).mkdir(parents=True)
        (here / "patches" / name / "series").touch()
        (here / "patches" / name / "series.toml").write_text(about)
    made = find_project(here, machine(tmp_path / "root", **ASCEND, torch="2.10.0"))
    assert made.patches == {"vllm": ["0.22.1", "patches/vllm"], "transformers": ["patches/team/transformers"]}
    made.file.write_text(made.text())
    assert load_summary(str(made.file)).patches["vllm-ascend"] == ("0.22.1rc1",)


def test_machine_without_vllm_extends_no_stack(tmp_path: Path, here: Path) -> None:
    made = find_project(here, machine(tmp_path / "root", transformers="5.19.0", torch="2.13.0"))
    assert (made.extends, made.packages, made.patches, made.targets) == (None, {}, {}, {})
    made.file.write_text(made.text())
    assert load_summary(str(made.file)).patches == {}
