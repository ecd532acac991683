"""Products on the CPU, and the preparation for an NPU: a fake MindSpeed records what it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from vime_runtime.device import Bf16MatmulInFp32

from harness.tolerances import of_rounding, of_sum

FEATURES = """
class Feature:
    def __init__(self, name):
        self.feature_name = name

class MindSpeedFeaturesManager:
    FEATURES_LIST = [Feature(n) for n in ("megatron_basic", "use_fused_rotary_pos_emb", "use_swiglu", "dsa")]

    @classmethod
    def set_features_list(cls, features):
        cls.FEATURES_LIST[:] = features
"""
ADAPTOR = """
import sys
from mindspeed.features_manager import MindSpeedFeaturesManager
from vime_runtime.trainer.attention import core_attention

found = {
    "attention": core_attention().__name__,
    "arguments": sys.argv[1:],
    "features": [feature.feature_name for feature in MindSpeedFeaturesManager.FEATURES_LIST],
    "megatron": "megatron.core" in sys.modules,
}
"""
SCRIPT = """
import json, sys
from vime_runtime import device
{before}
device.get("npu").before_megatron()
device.get("npu").before_megatron()  # a rank calls it early, and again when it starts
from mindspeed.megatron_adaptor import found
print(json.dumps(found | {{"left": sys.argv[1:]}}))
"""


@pytest.fixture(scope="module")
def mindspeed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = tmp_path_factory.mktemp("path") / "mindspeed"
    package.mkdir()
    for name, text in (("__init__", ""), ("features_manager", FEATURES), ("megatron_adaptor", ADAPTOR)):
        (package / f"{name}.py").write_text(text)
    return package.parent


def prepare(path: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.format(before=before), "--node-ip-address=192.0.2.7", "--raylet"]
    environment = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def found(mindspeed: Path) -> dict[str, Any]:
    """Return what MindSpeed's adaptor found when it was imported."""
    done = prepare(mindspeed)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_npu_attention_is_in_place_before_mindspeeds_adaptor_is_imported(found):
    assert found["attention"] == "FusionAttention"


def test_the_npu_attention_is_refused_after_mindspeeds_adaptor(mindspeed):
    done = prepare(mindspeed, before="import mindspeed.megatron_adaptor")
    assert "FusionAttention must be set before mindspeed.megatron_adaptor is imported" in done.stderr


def test_mindspeeds_adaptor_comes_before_megatron(mindspeed, found):
    assert not found["megatron"]
    done = prepare(mindspeed, before="import types; sys.modules['megatron.core'] = types.ModuleType('core')")
    assert "megatron.core was imported before MindSpeed's adaptor" in done.stderr


def test_mindspeed_reads_its_own_arguments_and_the_worker_keeps_those_of_ray(found):
    assert found["arguments"] == ["--optimization-level=0"]
    assert found["left"] == ["--node-ip-address=192.0.2.7", "--raylet"]


def test_mindspeed_leaves_fused_rope_off_and_needs_no_megatron_training(found):
    assert found["features"] == ["megatron_basic", "use_swiglu"]


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
