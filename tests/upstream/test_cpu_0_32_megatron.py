"""The megatron-core 0.16.1 series on the real module, released and patched."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

from harness import run_script
from harness.upstream import released

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs torch", allow_module_level=True)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The observations of the probe on the package, released and patched."""
    trees = {
        "released": released.python_sources("megatron-core", "0.16.1"),
        "patched": released.patched_sources("cpu-0.32", tmp_path_factory.mktemp("patched")),
    }
    return {
        name: run_script(
            "upstream.megatron_probe",
            environment={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        )
        for name, tree in trees.items()
    }


@pytest.fixture
def on_cpu(probed: dict[str, Any]) -> Any:
    return probed["patched"]["cpu"]


def test_the_release_needs_cuda(probed: dict[str, Any]) -> None:
    assert "CUDA" in probed["released"]["cpu"]["error"]


def test_fork_draws_its_own_numbers_and_leaves_the_outer_ones_alone(on_cpu: dict[str, Any]) -> None:
    outer, inner, outer_next, inner_next = on_cpu["seeded"]
    assert on_cpu["without_fork"] == [outer, outer_next]
    assert len({tuple(pair) for pair in (outer, inner, outer_next, inner_next)}) == 4
    assert on_cpu["state_kept_after_error"]
    assert on_cpu["warnings"] == []


def test_the_same_seed_gives_the_same_numbers_and_ranks_differ_only_inside(on_cpu: dict[str, Any]) -> None:
    assert on_cpu["again"] == on_cpu["seeded"]
    assert on_cpu["other_rank"][0::2] == on_cpu["seeded"][0::2]
    assert on_cpu["other_rank"][1] != on_cpu["seeded"][1]


def test_rotary_embedding_is_made_and_used_on_the_cpu(on_cpu: dict[str, Any]) -> None:
    assert on_cpu["rotary_device"] == "cpu"
    # theta_i = base^(-2i/d), each angle twice: RoFormer (arXiv 2104.09864), equation 15.
    angles = [
        position * 1_000_000 ** (-2 * i / 8) for position in range(3) for _ in range(2) for i in range(4)
    ]
    assert on_cpu["rotary"] == pytest.approx(angles, rel=8 * 2**-23, abs=0)  # a power and its inverse in fp32


def test_with_cuda_every_call_is_the_release_s(probed: dict[str, Any]) -> None:
    assert "manual_seed 7" in probed["released"]["cuda"]["calls"]
    assert probed["patched"]["cuda"] == probed["released"]["cuda"]
