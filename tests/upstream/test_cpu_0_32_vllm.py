"""The vllm 0.32.0 series on the real source files, released and patched.

The rest of vLLM is the installed one: the files under test are loaded from the unpacked wheel under names of
their own, and only what asks the machine for its memory is replaced.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, call

import pytest

from harness.upstream import released

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs vllm 0.32.0 installed", allow_module_level=True)

GIB = 1 << 30
FILES = {
    "worker": "vllm/v1/worker/cpu_worker.py",
    "backend": "vllm/device_allocator/sleep_mode_backend.py",
    "arguments": "vllm/engine/arg_utils.py",
    "platform": "vllm/platforms/cpu.py",
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], ModuleType]:
    """Loads one of FILES, "released" or "patched"."""
    sources = {
        "released": released.python_sources("vllm", "0.32.0"),
        "patched": released.patched_sources("cpu-0.32", tmp_path_factory.mktemp("patched")),
    }
    loaded: dict[str, ModuleType] = {}

    def module(which: str, name: str) -> ModuleType:
        package = ".".join(Path(FILES[name]).parent.parts)  # relative imports are then the installed vLLM's
        key = f"{package}.{which}_{name}"
        if key not in loaded:
            spec = importlib.util.spec_from_file_location(key, sources[which] / FILES[name])
            assert spec
            assert spec.loader
            loaded[key] = sys.modules[key] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[key])
        return loaded[key]

    return module


def memory_worker(
    module: ModuleType, kv_bytes: int | None, free: int, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A worker on a machine of 8 GiB that may use half of it, of which ``free`` bytes are free."""
    from vllm.utils.cpu_resource_utils import MemoryNodeInfo

    monkeypatch.setattr(module, "get_memory_node_info", lambda node: MemoryNodeInfo(8 * GIB, free))
    worker = object.__new__(module.CPUWorker)
    worker.cache_config = SimpleNamespace(kv_cache_memory_bytes=kv_bytes, gpu_memory_utilization=0.5)
    worker.requested_cpu_memory = 4 * GIB
    worker._should_warm_up_model = lambda: False
    return worker


def start(worker: Any, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the start-up check: the part of __init__ before the general worker's."""

    def general(self: Any, *arguments: Any, **options: Any) -> None:
        self.parallel_config = SimpleNamespace()

    monkeypatch.setattr(module.Worker, "__init__", general)
    config = SimpleNamespace(cache_config=worker.cache_config)
    type(worker).__init__(worker, config, 0, 0, "tcp://127.0.0.1:1")


@pytest.mark.parametrize("which", ["released", "patched"])
def test_not_colocated_memory_checks_are_strict(
    load: Callable[..., ModuleType], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(which, "worker")
    for value in (None, "0", ""):
        monkeypatch.delenv("VIME_COLOCATE", raising=False)
        if value is not None:
            monkeypatch.setenv("VIME_COLOCATE", value)
        with pytest.raises(ValueError, match="on startup"):
            start(memory_worker(module, None, 2 * GIB, monkeypatch), module, monkeypatch)
        with pytest.raises(ValueError, match="kv cache"):
            memory_worker(module, None, 2 * GIB, monkeypatch).determine_available_memory()
        with pytest.raises(ValueError, match="kv cache"):
            memory_worker(module, 3 * GIB, 2 * GIB, monkeypatch).determine_available_memory()


def test_release_is_strict_even_colocated(
    load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIME_COLOCATE", "1")
    module = load("released", "worker")
    with pytest.raises(ValueError, match="on startup"):
        start(memory_worker(module, None, 2 * GIB, monkeypatch), module, monkeypatch)


def test_colocated_budget_does_not_depend_on_free_memory(
    load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setenv("VIME_COLOCATE", "1")
    module = load("patched", "worker")
    start(memory_worker(module, None, 0, monkeypatch), module, monkeypatch)
    budgets = [
        memory_worker(module, None, free, monkeypatch).determine_available_memory() for free in (0, 8 * GIB)
    ]
    own = psutil.Process(os.getpid()).memory_info().rss
    assert budgets == pytest.approx([4 * GIB - own] * 2, abs=64 << 20)
    assert memory_worker(module, 3 * GIB, 0, monkeypatch).determine_available_memory() == 3 * GIB


def test_colocated_budget_above_total_memory_is_refused(
    load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIME_COLOCATE", "1")
    module = load("patched", "worker")
    with pytest.raises(ValueError, match="kv cache"):
        memory_worker(module, 9 * GIB, 0, monkeypatch).determine_available_memory()
    worker = memory_worker(module, None, 0, monkeypatch)
    worker.requested_cpu_memory = 1 << 20  # less than this process already holds
    with pytest.raises(ValueError, match="kv cache"):
        worker.determine_available_memory()


def sleeping_worker(module: ModuleType, enabled: bool) -> Any:
    """A worker whose sleep-mode backend, as a plugin would bring one, records its calls."""
    import torch

    worker = object.__new__(module.CPUWorker)
    worker.model_config = SimpleNamespace(
        enable_sleep_mode=enabled, sleep_preserve_parameter_names=[], enable_nccl_comm_suspend=False
    )
    worker.vllm_config = SimpleNamespace(model_config=worker.model_config)
    worker._sleep_mode_backend = MagicMock()
    worker._sleep_saved_buffers, worker._sleep_saved_draft_buffers = {}, {}
    worker._sleep_saved_parameters = {}
    model = torch.nn.Linear(2, 2)
    model.register_buffer("table", torch.arange(3.0))
    worker.model_runner = SimpleNamespace(model=model)
    worker.get_draft_model = lambda: None
    return worker


def test_sleep_and_wake_reach_the_backend(load: Callable[..., ModuleType]) -> None:
    worker = sleeping_worker(load("patched", "worker"), enabled=True)
    worker.sleep(1)
    worker.wake_up(["weights"])
    worker.discard(("kv_cache",))
    pool = worker._maybe_get_memory_pool_context("weights")
    backend = worker._sleep_mode_backend
    assert pool is backend.memory_pool.return_value
    assert backend.method_calls == [
        call.suspend(1),
        call.resume(["weights"]),
        call.discard(("kv_cache",)),
        call.memory_pool("weights"),
    ]


def test_buffers_are_restored_with_the_weights_after_level_2(load: Callable[..., ModuleType]) -> None:
    worker = sleeping_worker(load("patched", "worker"), enabled=True)
    worker.sleep(2)
    worker.model_runner.model.table.zero_()
    worker.wake_up(["kv_cache"])
    assert worker.model_runner.model.table.tolist() == [0, 0, 0]
    worker.wake_up(["weights"])
    assert worker.model_runner.model.table.tolist() == [0, 1, 2]


def test_unsupported_preserved_parameters_are_refused_before_sleeping(
    load: Callable[..., ModuleType],
) -> None:
    worker = sleeping_worker(load("patched", "worker"), enabled=True)
    worker.model_config.sleep_preserve_parameter_names = ["*.table"]
    with pytest.raises(ValueError, match="cannot preserve parameters"):
        worker.sleep(2)
    assert worker._sleep_mode_backend.method_calls == []


@pytest.mark.parametrize(("which", "enabled"), [("released", True), ("released", False), ("patched", False)])
def test_sleep_is_ignored_without_the_patch_or_sleep_mode(
    load: Callable[..., ModuleType], which: str, enabled: bool
) -> None:
    worker = sleeping_worker(load(which, "worker"), enabled)
    worker.sleep(1)
    worker.wake_up()
    with pytest.raises(RuntimeError, match="Selective discard"):
        worker.discard(("kv_cache",))
    assert isinstance(worker._maybe_get_memory_pool_context("weights"), nullcontext)
    assert worker._sleep_mode_backend.method_calls == []


def test_the_default_backend_refuses_the_cpu(load: Callable[..., ModuleType]) -> None:
    for which, supported in (("released", True), ("patched", False)):
        assert load(which, "backend").CuMemBackend.is_supported() is supported
    configured = SimpleNamespace(sleep_mode_backend="cumem")
    with pytest.raises(ValueError, match="'cumem' is not supported on this platform"):
        load("patched", "backend").SleepModeBackendFactory.create_backend(configured)


def test_backend_without_memory_pool_gets_a_null_context(load: Callable[..., ModuleType]) -> None:
    backend = load("patched", "backend")

    class Plain(backend.SleepModeBackend):  # type: ignore[misc]
        suspend = resume = lambda self, *arguments: None

    assert isinstance(Plain().memory_pool("weights"), nullcontext)


def test_the_backend_is_chosen_by_an_engine_argument(load: Callable[..., ModuleType]) -> None:
    with pytest.raises(TypeError, match="sleep_mode_backend"):
        load("released", "arguments").EngineArgs(model="m", sleep_mode_backend="mine")
    arguments = load("patched", "arguments").EngineArgs
    assert arguments(model="m").sleep_mode_backend == "cumem"
    assert arguments(model="m", sleep_mode_backend="mine").sleep_mode_backend == "mine"


def test_the_platform_offers_sleep_mode(load: Callable[..., ModuleType]) -> None:
    assert not load("released", "platform").CpuPlatform().is_sleep_mode_available()
    assert load("patched", "platform").CpuPlatform().is_sleep_mode_available()
