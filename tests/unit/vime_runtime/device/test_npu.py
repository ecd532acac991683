"""The preparation of a process for an NPU, with a fake MindSpeed that records what it finds when imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vime_runtime import device

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


def test_trainer_ranks_on_npus_talk_over_hccl():
    assert device.get("npu").distributed_backend == "hccl"
