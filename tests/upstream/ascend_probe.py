"""Run by test_ascend.py with a released vLLM and vllm-ascend on PYTHONPATH; prints what it observed as JSON.

The argument is a directory with the patched files. Each file under test is loaded as released and as patched,
under names of their own; all that they import is the released one.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any

import extension_probe
import npu_standin

GIB = 1 << 30
DEVICE = npu_standin.Device(64 * GIB)
PATCHED = Path(sys.argv[1])


def load(which: str, path: str) -> ModuleType:
    """Load one file, released or patched, under a name of its own in its package.

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


class Settings:
    """A configuration in which whatever is not given is None."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


# --- start-up of the worker -------------------------------------------------------------------------

WEIGHTS, PEAK, HCCL, GRAPHS = 8 * GIB, 3 * GIB, 1 * GIB, 2 * GIB
# What another process holds at start-up and takes or frees while the worker profiles, in GiB of 64.
NEIGHBOURS = ((0, 0), (10, 0), (10, 5), (10, -10), (40, 0), (40, -30), (0, 20))


def start_up(module: ModuleType, colocate: str | None, held: int, moved: int, utilization: float) -> Any:
    """Start a worker and size its KV cache: bytes, or the error.

    A neighbour holds ``held`` bytes at first and ``moved`` more (or less) once the worker profiles.
    """
    os.environ.pop("VIME_COLOCATE", None)
    if colocate is not None:
        os.environ["VIME_COLOCATE"] = colocate
    DEVICE.torch = DEVICE.peak = DEVICE.other = 0
    DEVICE.neighbour = held
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
        DEVICE.torch -= PEAK
        DEVICE.neighbour += moved

    # What prepares the device, and what 0.30 does with the number afterwards.
    for name in (
        "set_random_seed",
        "init_device_properties_triton",
        "register_device_print",
        "maybe_apply_startup_plan",
        "get_layerwise_reuse_config",
    ):
        setattr(module, name, lambda *arguments: None)
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
    ):
        setattr(worker, name, int)
    return worker


def observe_worker(which: str) -> dict[str, Any]:
    importlib.import_module("vllm_ascend.patch.platform.patch_torch_accelerator")  # leads to torch.npu
    module = load(which, "vllm_ascend/worker/worker.py")
    return {
        f"{colocate} {held} {moved:+}": start_up(module, colocate, held * GIB, moved * GIB, 0.6)
        for colocate in (None, "0", "true", "1")
        for held, moved in NEIGHBOURS
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


def observe_rotary_layer() -> dict[str, Any]:
    """The layer of vllm-ascend as it is now, in each case; observe_rotary has prepared what it needs."""
    from vllm_ascend.ops.rotary_embedding import AscendApplyRotaryEmb

    return {kind: _route(AscendApplyRotaryEmb, files) for kind, files in FLASH_ATTN.items()}


# --- asynchronous scheduler -------------------------------------------------------------------------


class Engine:
    """A scheduler with one request "a", steps that a test schedules, and the output that it gives them."""

    def __init__(self, module: ModuleType, drafts: int = 0) -> None:
        self.scheduler = _scheduler(module, drafts)
        self.request = self.add("a")

    def add(self, name: str) -> Any:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        parameters = SamplingParams(max_tokens=50, ignore_eos=True)
        self.request = Request(
            request_id=name,
            prompt_token_ids=list(range(20)),
            sampling_params=parameters,
            pooling_params=None,
        )
        self.scheduler.add_request(self.request)
        return self.request

    def step(self) -> Any:
        return self.scheduler.schedule()

    def output(self, step: Any, token: int) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        ids = list(step.num_scheduled_tokens)
        index = {name: position for position, name in enumerate(ids)}
        tokens = [[token] for _ in ids]
        self.scheduler.update_from_output(step, ModelRunnerOutput(ids, index, tokens, None, {}, []))

    def restart(self) -> None:
        """What a weight update does: all that was computed with the old weights goes."""
        self.scheduler.reset_prefix_cache(reset_running_requests=True)

    def abort(self) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(["a"], RequestStatus.FINISHED_ABORTED)

    def run(self, count: int) -> list[Any]:
        """Let it compute with the new weights: tokens from 100 on. Returns tokens and placeholders."""
        for token in range(100, 100 + count):
            self.output(self.step(), token)
        request = self.request
        return [list(request.output_token_ids), request.num_output_placeholders]


def _scheduler(module: ModuleType, drafts: int) -> Any:
    import torch
    from vllm.config import CacheConfig, ObservabilityConfig, ParallelConfig, SchedulerConfig
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    scheduling = SchedulerConfig(
        max_num_seqs=8,
        max_num_batched_tokens=512,
        max_model_len=512,
        is_encoder_decoder=False,
        async_scheduling=True,
    )
    cache = CacheConfig(block_size=16, enable_prefix_caching=False)
    cache.num_gpu_blocks = 1000
    no = lambda: False  # noqa: E731
    config = Settings(
        model_config=Settings(max_model_len=512, is_encoder_decoder=False),
        scheduler_config=scheduling,
        cache_config=cache,
        parallel_config=ParallelConfig(),
        observability_config=ObservabilityConfig(),
        num_speculative_tokens=drafts,
        num_lookahead_tokens=0,
        max_concurrent_batches=2,
        speculative_config=Settings(
            num_speculative_tokens=drafts,
            max_num_new_slots_for_drafting=0,
            use_eagle=no,
            use_eagle_block_drop=no,
            uses_draft_model=no,
            uses_extract_hidden_states=no,
            use_dflash=no,
            use_ngram_gpu=no,
        )
        if drafts
        else None,
    )
    with suppress(ImportError):  # from 0.30 on
        from vllm.config.ec_manager_config import EncoderCacheManagerConfig
        from vllm_ascend.patch.platform import patch_balance_schedule

        config.ec_manager_config = EncoderCacheManagerConfig()
        off = Settings(short_request_first_config=Settings(enabled=False))
        patch_balance_schedule.init_ascend_config = lambda config: Settings(scheduler_config=off)
    layer = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return module.AsyncScheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(1000, [], [KVCacheGroupSpec(["layer"], layer)]),
        structured_output_manager=Settings(
            should_advance=lambda request: False, accept_tokens=lambda *a: True
        ),
        block_size=16,
        mm_registry=SimpleNamespace(supports_multimodal_inputs=lambda model: False),
        log_stats=False,
    )


def undisturbed(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    first = engine.step()
    second = engine.step()
    engine.output(first, 900)
    engine.output(second, 901)
    return engine.run(2)


def restarted_with_none_in_flight(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    engine.output(engine.step(), 900)
    engine.restart()
    return engine.run(3)


def restarted_with_one_in_flight(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    engine.output(engine.step(), 900)
    stale = engine.step()
    engine.restart()
    fresh = engine.step()
    engine.output(stale, -1)
    engine.output(fresh, 99)
    return engine.run(2)


def restarted_with_two_in_flight(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    stale = [engine.step(), engine.step()]
    engine.restart()
    fresh = engine.step()
    for step in stale:
        engine.output(step, -1)
    engine.output(fresh, 99)
    return engine.run(2)


def restarted_twice(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    first = engine.step()
    engine.restart()
    second = engine.step()
    engine.restart()
    engine.output(first, -1)
    engine.output(second, -1)
    return engine.run(2)


def restarted_with_rejected_drafts(module: ModuleType) -> list[Any]:
    engine = Engine(module, drafts=3)
    engine.output(engine.step(), 900)
    stale = engine.step()
    engine.restart()
    fresh = engine.step()
    engine.output(stale, -1)  # one token for four placeholders: all three drafts were rejected
    engine.output(fresh, 99)
    return engine.run(6)


def aborted_and_added_again(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    engine.output(engine.step(), 900)
    stale = engine.step()
    engine.abort()
    engine.add("a")
    fresh = engine.step()
    engine.output(stale, -1)
    engine.output(fresh, 99)
    return engine.run(2)


def aborted_beside_another(module: ModuleType) -> list[Any]:
    engine = Engine(module)
    other = engine.add("b")
    first, second = engine.step(), engine.step()
    engine.abort()
    engine.output(first, 900)
    engine.output(second, 901)
    assert engine.request is other
    return engine.run(2)


SCENES: list[Callable[[ModuleType], list[Any]]] = [
    undisturbed,
    restarted_with_none_in_flight,
    restarted_with_one_in_flight,
    restarted_with_two_in_flight,
    restarted_twice,
    restarted_with_rejected_drafts,
    aborted_and_added_again,
    aborted_beside_another,
]


def observe_scheduler(which: str) -> dict[str, Any]:
    module = load(which, "vllm/v1/core/sched/async_scheduler.py")
    found: dict[str, Any] = {}
    for scene in SCENES:
        try:
            found[scene.__name__] = scene(module)
        except AssertionError:
            found[scene.__name__] = "AssertionError"
    return found


if __name__ == "__main__":
    npu_standin.install(DEVICE)
    importlib.import_module("vllm_ascend.worker.worker")
    gc.freeze()  # the worker collects garbage again and again: not among the modules
    observers = {"worker": observe_worker, "rotary": observe_rotary, "scheduler": observe_scheduler}
    seen = {
        name: {which: observe(which) for which in ("released", "patched")}
        for name, observe in observers.items()
    }
    seen["extension"] = extension_probe.observe(observe_rotary_layer)
    print(json.dumps(seen))
