"""Packages that PYTHONPATH and the working directory hide."""

from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine

FINDER = "/usr/local/lib/python3.11/site-packages/__editable___vllm_0_22_1_finder.py"


@pytest.mark.parametrize(
    ("files", "hook", "status"),
    [
        (["/src/vllm/__init__.py"], False, "fail"),
        (["/src/vllm.py"], False, "fail"),
        (["/src/vllm/notes.txt"], False, "pass"),  # a namespace package comes after every regular one
        (["/src/vllm/notes.txt"], True, "fail"),
        (["/src/megatron/__init__.py"], False, "pass"),
        (["/src/other/__init__.py"], True, "pass"),
    ],
)
@pytest.mark.parametrize("place", ["PYTHONPATH", "working directory"])
def test_directories_before_the_installed_packages(
    npu: Machine, files: list[str], hook: bool, status: str, place: str
) -> None:
    for file in files:
        npu.write(file)
    if hook:
        npu.write(FINDER, "MAPPING = {'vllm': '/vllm-workspace/vllm/vllm'}\n")
    if place == "PYTHONPATH":
        npu.environment["PYTHONPATH"] += ":/src"
    else:
        npu.path("/proc/self/cwd").symlink_to("/src")
        npu.environment["PWD"] = "/src"
    result = npu.check("environment.pythonpath")
    assert result.status == status, result.found
    assert status == "pass" or result.found.startswith("/src/vllm")


def test_safe_path_leaves_out_the_working_directory(npu: Machine) -> None:
    npu.write("/src/vllm/__init__.py")
    npu.path("/proc/self/cwd").symlink_to("/src")
    npu.environment |= {"PWD": "/src", "PYTHONSAFEPATH": "1"}
    assert npu.check("environment.pythonpath").status == "pass"


def test_empty_directory_is_no_submodule_without_gitmodules(npu: Machine) -> None:
    npu.path("/src/third").mkdir(parents=True)
    npu.environment["PYTHONPATH"] += ":/src/third:/none"
    assert npu.check("environment.pythonpath").status == "pass"
    npu.write("/src/.gitmodules", "[submodule]\n")
    assert npu.check("environment.pythonpath").status == "warn"
