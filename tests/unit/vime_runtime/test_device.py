"""Products on the CPU, and the preparation for an NPU: the stand-in for MindSpeed records what it finds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from vime_runtime.device import Bf16MatmulInFp32

from harness.npu.machine import Machine
from harness.tolerances import of_rounding, of_sum

SCRIPT = """
import json, sys
from vime_runtime import device
from vime_runtime.trainer.attention import core_attention
{before}
device.get("npu").before_megatron()
device.get("npu").before_megatron()  # a rank calls it early, and again when it starts
print(json.dumps([core_attention().__name__, sys.argv[1:]]))
"""
IMPORTED = "import types; sys.modules['{0}'] = types.ModuleType('{0}')"
OF_RAY = ["--node-ip-address=192.0.2.7", "--raylet"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "npus", chips=1)


def prepare(machine: Machine, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.format(before=before), *OF_RAY]
    return subprocess.run(command, capture_output=True, text=True, env=machine.environment())


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> tuple[str, list[str], dict[str, Any]]:
    """Return the attention and the arguments of the process, and what the adaptor found when imported."""
    done = prepare(machine)
    assert done.returncode == 0, done.stderr
    (found,) = machine.events("mindspeed.megatron_adaptor")
    return *json.loads(done.stdout.splitlines()[-1]), found  # torch_npu prints before it


def test_the_npu_attention_is_in_place_before_mindspeeds_adaptor_is_imported(machine, prepared):
    assert prepared[0] == "FusionAttention"
    done = prepare(machine, before=IMPORTED.format("mindspeed.megatron_adaptor"))
    assert "FusionAttention must be set before mindspeed.megatron_adaptor is imported" in done.stderr


def test_mindspeeds_adaptor_comes_before_megatron(machine, prepared):
    assert not prepared[2]["megatron_loaded"]
    done = prepare(machine, before=IMPORTED.format("megatron.core"))
    assert "megatron.core was imported before MindSpeed's adaptor" in done.stderr


def test_mindspeed_reads_its_own_arguments_and_the_worker_keeps_those_of_ray(prepared):
    assert prepared[2]["arguments"] == ["--optimization-level=0"]
    assert prepared[1] == OF_RAY


def test_mindspeed_leaves_fused_rope_off_and_needs_no_megatron_training(prepared):
    assert prepared[2]["features"] == ["requirements_basic", "megatron_basic", "profiler_default"]


def test_bf16_product_and_gradient_are_the_fp32_ones_rounded_once() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(33, 64).bfloat16(), torch.randn(48, 64).bfloat16()
    weight.requires_grad_()
    grad = torch.randn(33, 48).bfloat16()
    with Bf16MatmulInFp32():
        product = rows @ weight.t()
        product.backward(grad)
    # One rounding is off by half a unit in the last place at most. The rest is the error of sums in fp32, of
    # 64 products of about 1, or 33.
    once = of_rounding(torch.bfloat16)["rtol"] / 2
    sums = of_sum(torch.float32, 64, magnitude=10.0)
    tolerance = {"rtol": once + sums["rtol"], "atol": sums["atol"]}
    exact, exact_grad = rows.double() @ weight.detach().double().t(), grad.double().t() @ rows.double()
    torch.testing.assert_close(product.double(), exact, **tolerance)
    torch.testing.assert_close(weight.grad.double(), exact_grad, **tolerance)


def test_fp32_product_is_unchanged() -> None:
    rows, weight = torch.randn(33, 64), torch.randn(64, 48)
    with Bf16MatmulInFp32():
        product = rows @ weight
    assert product.dtype is torch.float32
    torch.testing.assert_close(product, rows @ weight, **of_sum(torch.float32, 64, magnitude=10.0))
