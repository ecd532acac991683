"""The devices that the runtime trains on: the CPU and the Ascend NPU.

MindSpeed replaces Megatron-core's CUDA calls with NPU calls. Read at its commit
fc63de5c48426dd019c3b3f39e65f5bdf56e4086: importing ``mindspeed.megatron_adaptor`` parses the command line of
the process and applies every feature whose level is at most ``--optimization-level``, level 0 being "the
minimum patch set for megatron to adapt to NPU". It has to be imported before Megatron, for which it provides
replacements of Transformer Engine and apex, which no NPU has.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vime_runtime.memory.region import OffloadableRegion
from vime_runtime.spec.run_config import RunConfig

# Higher levels replace attention, embedding and cross entropy with functions that expect the arguments of
# Megatron's own training script.
MINDSPEED_ARGUMENTS = ["--optimization-level=0"]
# Features of level 0 that are left out.
EXCLUDED_FEATURES = {
    # Its RoPE drops the argument with the context-parallel group, without which Megatron refuses packed rows.
    "use_fused_rotary_pos_emb",
    # Sparse attention of DeepSeek models; it imports megatron.training, which the package does not have.
    "dsa",
}


class Device(ABC):
    """One kind of device. Only this module and those that move memory name a device's torch module."""

    distributed_backend: str

    @abstractmethod
    def torch_device(self) -> torch.device:
        """Return the device on which this process computes; each process of a run sees exactly one."""

    @abstractmethod
    def training_region(self, config: RunConfig) -> OffloadableRegion:
        """Return the region of memory for the model and the optimizer of this process."""

    @abstractmethod
    def before_megatron(self) -> None:
        """Prepare the process for the import of Megatron-core."""

    def world_group_options(self) -> Any:
        """Return the ``pg_options`` of the process group of all ranks; None for the defaults."""
        return None

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Return the context for the forward and backward passes of a model in ``dtype``."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done."""
        torch.get_device_module(self.torch_device()).synchronize()

    def release_cache(self) -> None:  # noqa: B027
        """Return the memory that torch's allocator holds without a tensor in it. A CPU's holds none."""


class Cpu(Device):
    """A CPU: gloo between the ranks. What Megatron-core needs there is patched in its sources."""

    distributed_backend = "gloo"

    def torch_device(self) -> torch.device:
        """Return the CPU."""
        return torch.device("cpu")

    def training_region(self, config: RunConfig) -> OffloadableRegion:
        """Return a region whose bytes are in a file of ``memory.offload_dir`` while offloaded."""
        from vime_runtime.memory.cpu_region import CpuRegion

        return CpuRegion(Path(config.recipe.memory.offload_dir or config.run_dir))

    def before_megatron(self) -> None:
        """Prepare nothing."""

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Compute bf16 products in fp32 on a CPU that has no instructions for bf16."""
        return Bf16MatmulInFp32() if matmul_is_slow(dtype) else nullcontext()  # type: ignore[no-untyped-call]


class Npu(Device):
    """An Ascend NPU: HCCL between the ranks. It computes in every dtype."""

    distributed_backend = "hccl"

    def torch_device(self) -> torch.device:
        """Return the one NPU that this process sees."""
        import torch_npu  # noqa: F401  registers torch.npu

        return torch.device("npu", torch.get_device_module("npu").current_device())

    def training_region(self, config: RunConfig) -> OffloadableRegion:
        """Return a region of torch_memory_saver, whose preload mode does not work on an NPU."""
        from vime_runtime.memory.torch_memory_saver_region import TorchMemorySaverRegion

        return TorchMemorySaverRegion(hook_mode="torch")

    def world_group_options(self) -> Any:
        """Return options with the smallest buffers, of 1 MB each. The other groups have the default size."""
        from torch_npu._C._distributed_c10d import ProcessGroupHCCL

        options = ProcessGroupHCCL.Options()
        options.hccl_config = {"hccl_buffer_size": 1}
        return options

    def release_cache(self) -> None:
        """Return torch's cached device memory, after a training step up to all that its activations took.

        A memory pool in use, such as that of the training region, keeps its blocks (``release_cached_blocks``
        in NPUCachingAllocator.cpp of torch_npu). This must not be called inside ``allocating``.
        """
        torch.get_device_module(self.torch_device()).empty_cache()

    def before_megatron(self) -> None:
        """Put the NPU's attention in place, and only then import MindSpeed's adaptor, once in a process.

        The adaptor reads the command line of this process, which is that of a Ray worker.

        Raises:
            RuntimeError: Megatron-core has been imported already.
        """
        from vime_runtime.trainer.attention import FusionAttention, set_core_attention

        set_core_attention(FusionAttention)
        if "mindspeed.megatron_adaptor" in sys.modules:
            return
        if "megatron.core" in sys.modules:
            raise RuntimeError(
                "megatron.core was imported before MindSpeed's adaptor, which has to come first"
            )
        own = sys.argv
        sys.argv = [own[0], *MINDSPEED_ARGUMENTS]
        try:
            from mindspeed.features_manager import MindSpeedFeaturesManager

            features = MindSpeedFeaturesManager.FEATURES_LIST
            MindSpeedFeaturesManager.set_features_list(
                [feature for feature in features if feature.feature_name not in EXCLUDED_FEATURES]
            )
            import mindspeed.megatron_adaptor  # noqa: F401
        finally:
            sys.argv = own


def get(name: str) -> Device:
    """Return the device called ``cpu`` or ``npu``. Raises KeyError for any other name."""
    devices: dict[str, type[Device]] = {"cpu": Cpu, "npu": Npu}
    return devices[name]()


def matmul_is_slow(dtype: torch.dtype) -> bool:
    """Return True for bf16 on a CPU without AVX-512 or AMX.

    torch has only a scalar loop for it there, ten times slower (512 x 256, 128 rows, AVX2) than converting
    both factors to fp32 and the result to bf16. The sums are in fp32 either way.
    """
    return dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Bf16MatmulInFp32(TorchDispatchMode):
    """Compute every bf16 ``mm`` in fp32 and round the result once."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten.mm.default and args[0].dtype is torch.bfloat16:
            return torch.mm(args[0].float(), args[1].float()).bfloat16()
        return func(*args, **(kwargs or {}))
