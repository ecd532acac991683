"""Run by test_ascend.py on a Machine with a released vLLM and vllm-ascend; prints JSON.

The argument is a directory with the patched files. Each file under test is loaded as released and as patched,
under separate names; everything that they import is as released.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import vllm_ascend_parts

from harness.upstream import scheduler_probe
from harness.upstream.partial_config import Settings

GIB = 1 << 30
PATCHED = Path(sys.argv[1])


class Device:
    """The memory of an NPU, in bytes, as the worker under test sees it.

    ``allocated`` is what the allocator of this process holds and ``peak`` the most it held; ``other`` is
    other memory of this process (contexts, HCCL), and ``neighbor`` the memory of other processes.
    """

    total = 64 * GIB
    allocated = peak = other = neighbor = 0

    def allocate(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)

    def reset_peak(self, device: Any = None) -> None:
        self.peak = self.allocated

    def info(self, device: Any = None) -> tuple[int, int]:
        return self.total - self.allocated - self.other - self.neighbor, self.total

    def stats(self, device: Any = None) -> dict[str, int]:
        return {"allocated_bytes.all.peak": self.peak, "allocated_bytes.all.current": self.allocated}

    def install(self) -> None:
        """Replace the memory of the NPU."""
        torch.npu.mem_get_info = self.info
        torch.npu.memory_reserved = torch.npu.memory_allocated = lambda device=None: self.allocated
        torch.npu.memory_stats = self.stats
        torch.npu.reset_peak_memory_stats = self.reset_peak


DEVICE = Device()


def load(which: str, path: str) -> ModuleType:
    """Load one file, released or patched, under a separate name in its package.

    A file that the series leaves alone is the released one in both cases.
    """
    package = ".".join(Path(path).parent.parts)
    importlib.import_module(package)
    roots = [PATCHED] if which == "patched" else []
    root = next(root for root in (*roots, *map(Path, sys.path)) if (root / path).is_file())
    name = f"{package}.{which}_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, root / path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- start-up of the worker -------------------------------------------------------------------------

WEIGHTS, PEAK, HCCL, GRAPHS = 8 * GIB, 3 * GIB, 1 * GIB, 2 * GIB
# What another process holds at start-up and takes or frees while the worker profiles, in GiB of 64.
NEIGHBORS = ((0, 0), (10, 0), (10, 5), (10, -10), (40, 0), (40, -30), (0, 20))


def start_up(module: ModuleType, colocate: str | None, held: int, moved: int, utilization: float) -> Any:
    """Start a worker and size its KV cache: bytes, or the error.

    A neighbor holds ``held`` bytes at first and ``moved`` more (or less) once the worker profiles.
    """
    os.environ.pop("VIME_COLOCATE", None)
    if colocate is not None:
        os.environ["VIME_COLOCATE"] = colocate
    DEVICE.allocated = DEVICE.peak = DEVICE.other = 0
    DEVICE.neighbor = held
    worker = _worker(module, moved, utilization)
    try:
        worker._init_device()
        DEVICE.allocate(WEIGHTS)
        return worker.determine_available_memory()
    except (ValueError, AssertionError) as e:
        return str(e)


def _worker(module: ModuleType, moved: int, utilization: float) -> Any:
    def distributed() -> None:
        DEVICE.other += HCCL

    def profile_run() -> None:
        DEVICE.allocate(PEAK)
        DEVICE.allocated -= PEAK
        DEVICE.neighbor += moved

    # What prepares the device, and what releases from 0.26 on do with the number afterwards.
    for name in (
        "set_random_seed",
        "init_device_properties_triton",
        "register_device_print",
        "maybe_apply_startup_plan",
        "get_layerwise_reuse_config",
        "get_gva_layerwise_config",
    ):
        setattr(module, name, lambda *arguments: None)
    module.get_ascend_config = Settings
    worker = object.__new__(module.NPUWorker)
    worker.local_rank = worker.rank = 0
    worker.device = "npu:0"
    worker.cache_config = SimpleNamespace(gpu_memory_utilization=utilization, kv_cache_memory_bytes=None)
    worker.model_config = SimpleNamespace(seed=0, hf_config=None)
    worker.parallel_config = Settings(data_parallel_size=1, distributed_executor_backend="ray")
    mode = module.CUDAGraphMode.FULL
    worker.vllm_config = Settings(
        parallel_config=worker.parallel_config, compilation_config=SimpleNamespace(cudagraph_mode=mode)
    )
    worker.model_runner = SimpleNamespace(
        model_memory_usage=WEIGHTS, profile_run=profile_run, profile_cudagraph_memory=lambda: GRAPHS
    )
    worker._init_worker_distributed_environment = distributed
    for name in (
        "_scale_kv_cache_memory_for_multi_group",
        "_apply_kv_offload_decode_memory_constraints",
        "_apply_kvpp_memory_budget",
        "update_available_memory_for_sparse_kv_offload",
    ):
        setattr(worker, name, int)
    return worker


def observe_worker(which: str) -> dict[str, Any]:
    importlib.import_module("vllm_ascend.patch.platform.patch_torch_accelerator")  # leads to torch.npu
    module = load(which, "vllm_ascend/worker/worker.py")
    return {
        f"{colocate} {held} {moved:+}": start_up(module, colocate, held * GIB, moved * GIB, 0.6)
        for colocate in (None, "0", "true", "1")
        for held, moved in NEIGHBORS
    }


# --- rotary embedding -------------------------------------------------------------------------------

FLASH_ATTN = {
    "none": {},
    "for CUDA": {"__init__.py": "raise ImportError('libcudart.so.12: cannot open shared object file')"},
    "stand-in": {"__init__.py": ""},
    "whole": {
        "__init__.py": "",
        "ops/__init__.py": "",
        "ops/triton/__init__.py": "",
        "ops/triton/rotary.py": "def apply_rotary(): pass",
    },
}


@contextmanager
def flash_attn(files: dict[str, str]) -> Iterator[None]:
    """A package of that name with these files."""
    with TemporaryDirectory() as folder:
        for path, text in files.items():
            file = Path(folder, "flash_attn", path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
            importlib.invalidate_caches()
            for name in [name for name in sys.modules if name.partition(".")[0] == "flash_attn"]:
                del sys.modules[name]


def observe_rotary(which: str) -> dict[str, Any]:
    from vllm.model_executor import custom_op
    from vllm.utils import torch_utils

    compilation = Settings(custom_ops=["all"], enabled_custom_ops=set(), disabled_custom_ops=set())
    custom_op.get_cached_compilation_config = lambda: compilation
    torch_utils.direct_register_custom_op = lambda *arguments, **options: None  # once for each name
    for registry in ("op_registry", "op_registry_oot"):
        getattr(custom_op, registry, {}).clear()
    name = "vllm.model_executor.layers.rotary_embedding.common"
    common = load(which, "vllm/model_executor/layers/rotary_embedding/common.py")
    released, sys.modules[name] = sys.modules[name], common
    ascend = load("released", "vllm_ascend/ops/rotary_embedding.py")
    sys.modules[name] = released
    found: dict[str, Any] = {}
    for kind, files in FLASH_ATTN.items():
        found[f"npu {kind}"] = _route(ascend.AscendApplyRotaryEmb, files)
    npu = getattr(common, "current_platform", None)
    for platform in ("cuda", "cpu"):
        if npu:
            common.current_platform = SimpleNamespace(
                is_cpu=lambda platform=platform: platform == "cpu", is_out_of_tree=lambda: False
            )
        found |= {f"{platform} {kind}": _route(common.ApplyRotaryEmb, f) for kind, f in FLASH_ATTN.items()}
    return found


def _route(layer: Any, files: dict[str, str]) -> str | None:
    """The module that the layer would compute with, or the error that ends the worker."""
    with flash_attn(files):
        try:
            found = layer().apply_rotary_emb_flash_attn
        except ImportError as e:
            return type(e).__name__
        return found.__module__ if found else None


def observe_scheduler(which: str) -> dict[str, Any]:
    module = load(which, "vllm/v1/core/sched/async_scheduler.py")
    with suppress(ImportError):  # vllm-ascend 0.26.0rc1 replaces a method of the class
        from vllm_ascend.patch.platform import patch_async_scheduler as ascend

        ascend.AsyncScheduler = module.AsyncScheduler
        module.AsyncScheduler._update_request_with_output = ascend._update_request_with_output
    return scheduler_probe.observe(module)


if __name__ == "__main__":
    # vLLM up to 0.19 imports it for structured output, and our lock does not have it.
    sys.modules.setdefault("diskcache", SimpleNamespace(Cache=None))  # type: ignore[arg-type]
    vllm_ascend_parts.prepare_worker()
    # vllm-ascend 0.18 patches the sources of torchair, which needs a library of CANN to be imported.
    torchair = "vllm_ascend.patch.worker.patch_npugraph_ex_triton"
    sys.modules[torchair] = ModuleType(torchair)
    DEVICE.install()
    importlib.import_module("vllm_ascend.worker.worker")
    gc.freeze()  # the worker collects garbage again and again: not among the modules
    observers = {"worker": observe_worker, "rotary": observe_rotary, "scheduler": observe_scheduler}
    seen = {
        name: {which: observe(which) for which in ("released", "patched")}
        for name, observe in observers.items()
    }
    print(json.dumps(seen))
