"""The Ascend NPU: HCCL between the ranks, torch_memory_saver as a pluggable allocator.

MindSpeed replaces Megatron-core's CUDA calls with NPU calls. Read at its commit
fc63de5c48426dd019c3b3f39e65f5bdf56e4086: importing ``mindspeed.megatron_adaptor`` parses the command line of
the process and applies every feature whose level is at most ``--optimization-level``, level 0 being "the
minimum patch set for megatron to adapt to NPU". It has to be imported before Megatron, for which it provides
replacements of Transformer Engine and apex, which no NPU has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from vime_runtime.memory.region import OffloadableRegion
from vime_runtime.spec.run_config import RunConfig

MINDSPEED_ARGUMENTS = (
    # Higher levels replace attention, embedding and cross entropy with functions that expect the arguments
    # of Megatron's own training script.
    "--optimization-level=0",
)
# Features of level 0 that are left out.
EXCLUDED_FEATURES = {
    # Its RoPE drops the argument with the context-parallel group, without which Megatron refuses packed rows.
    "use_fused_rotary_pos_emb",
    # Sparse attention of DeepSeek models; it imports megatron.training, which the package does not have.
    "dsa",
}


class Npu:
    """An Ascend NPU."""

    distributed_backend = "hccl"

    def torch_device(self) -> torch.device:
        """Return the one NPU that this process sees."""
        import torch_npu  # noqa: F401  registers torch.npu

        return torch.device("npu", torch.get_device_module("npu").current_device())

    def before_megatron(self) -> None:
        """Put the NPU's attention in place, and only then import MindSpeed's adaptor."""
        from vime_runtime.trainer.attention import FusionAttention, set_core_attention

        set_core_attention(FusionAttention)
        import_mindspeed()

    def training_region(self, config: RunConfig, rank: int) -> OffloadableRegion:
        """Return a region of torch_memory_saver, whose preload mode does not work on an NPU."""
        from vime_runtime.memory.torch_memory_saver_region import TorchMemorySaverRegion

        return TorchMemorySaverRegion(hook_mode="torch")

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Do nothing: the device computes in every dtype."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait for every queued kernel."""
        torch.get_device_module("npu").synchronize()


def import_mindspeed() -> None:
    """Import MindSpeed's adaptor, once in a process.

    Raises:
        RuntimeError: Megatron-core has been imported already.
    """
    if "mindspeed.megatron_adaptor" in sys.modules:
        return
    if "megatron.core" in sys.modules:
        raise RuntimeError("megatron.core was imported before MindSpeed's adaptor, which has to come first")
    with _command_line(*MINDSPEED_ARGUMENTS):
        from mindspeed.features_manager import MindSpeedFeaturesManager

        features = MindSpeedFeaturesManager.FEATURES_LIST
        MindSpeedFeaturesManager.set_features_list(
            [feature for feature in features if feature.feature_name not in EXCLUDED_FEATURES]
        )
        import mindspeed.megatron_adaptor  # noqa: F401


@contextmanager
def _command_line(*arguments: str) -> Iterator[None]:
    """Replace the command line of this process, that of a Ray worker, inside the block."""
    own = sys.argv
    sys.argv = [own[0], *arguments]
    try:
        yield
    finally:
        sys.argv = own
