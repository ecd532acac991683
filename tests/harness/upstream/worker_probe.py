"""Weights through a stack's released executor and worker into its own model classes.

Run by test_weight_transfer.py as ``worker_probe.py cpu|npu CHECKPOINT`` with the released packages on the
path, for "npu" on a Machine (``harness/npu/machine.py``). Prints what it observed as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

EXTENSION = "vime_runtime.rollout.worker.WorkerExtension"


class Probe:
    """An executor with one worker that has loaded a checkpoint, and what the engine does with it."""

    def __init__(self, device: str, checkpoint: Path) -> None:
        from vime_runtime.rollout.plugin import SLEEP_BACKEND
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.executor.abstract import Executor

        options: dict[str, dict[str, Any]] = {
            "cpu": {"sleep_mode_backend": SLEEP_BACKEND, "kv_cache_memory_bytes": 16 << 20},
            "npu": {"additional_config": {"weight_nz_mode": 0}},
        }
        config = EngineArgs(
            model=str(checkpoint),
            dtype="float32",
            enforce_eager=True,
            max_model_len=64,
            skip_tokenizer_init=True,
            distributed_executor_backend="uni",
            worker_extension_cls=EXTENSION,
            enable_sleep_mode=True,
            **options[device],
        ).create_engine_config()
        executor = Executor.get_class(config)(config)
        self.call: Callable[..., list[Any]] = executor.collective_rpc
        self.worker = executor.driver_worker.worker
        self.model = self.worker.get_model()
        self.tensors = load_file(checkpoint / "model.safetensors")

    def update(self, tensors: dict[str, torch.Tensor]) -> None:
        self.call("begin_bucket_update")
        self.send(tensors)
        self.call("finish_bucket_update")

    def send(self, tensors: dict[str, torch.Tensor]) -> None:
        from vime_runtime.weight_sync.buckets import BucketExporter

        exporter = BucketExporter(lambda: iter(tensors.items()), bucket_bytes=10_000)
        while (bucket := exporter.next()) is not None:
            self.call("load_bucket", args=(bucket,))

    def parameters(self) -> dict[str, torch.Tensor]:
        """Copies in host memory, in the layout that the worker computes with."""
        return {name: parameter.data.cpu().clone() for name, parameter in self.model.named_parameters()}


def observe(device: str, checkpoint: Path) -> dict[str, Any]:
    probe = Probe(device, checkpoint)
    loaded = probe.parameters()
    reloads = count_reloads()

    def differing(expected: dict[str, torch.Tensor]) -> list[str]:
        found = probe.parameters()
        return [name for name in expected if not torch.equal(found[name], expected[name])]

    def error_of(call: Callable[[], Any]) -> str:
        try:
            call()
        except Exception as e:
            return f"{type(e).__name__}: {e}"
        return ""

    addresses = [parameter.data_ptr() for parameter in probe.model.parameters()]
    probe.update({name: tensor + 1 for name, tensor in probe.tensors.items()})
    seen: dict[str, Any] = {
        "worker": type(probe.worker).__module__,
        "last base": type(probe.worker).__bases__[-1].__qualname__,
        "parameters": list(loaded),
        "changed": differing(loaded),
    }
    probe.call("sleep", kwargs={"level": 2})
    probe.call("wake_up", kwargs={"tags": ["weights"]})
    seen["lost"] = differing(loaded)
    probe.update(probe.tensors)
    seen["differing"] = differing(loaded)
    seen["moved"] = addresses != [parameter.data_ptr() for parameter in probe.model.parameters()]
    seen["without loader"] = [
        name for name, parameter in probe.model.named_parameters() if not hasattr(parameter, "weight_loader")
    ]

    last = list(probe.tensors)[-1]
    probe.call("begin_bucket_update")
    probe.send({name: tensor for name, tensor in probe.tensors.items() if name != last})
    seen["incomplete"] = error_of(lambda: probe.call("finish_bucket_update"))
    probe.send({last: probe.tensors[last]})
    probe.call("finish_bucket_update")
    seen["completed"] = not differing(loaded)
    probe.call("begin_bucket_update")
    seen["misshapen"] = error_of(lambda: probe.send({"model.norm.weight": torch.zeros(7)}))
    probe.update(probe.tensors)
    seen["after a failure"] = differing(loaded)
    return seen | {"last tensor": last, "reloads": reloads()}


def count_reloads() -> Callable[[], int]:
    """Return a function that tells how often vLLM's layerwise reload was started from now on."""
    calls: list[Any] = []
    reload = importlib.import_module("vllm.model_executor.model_loader.reload.layerwise")
    start = reload.initialize_layerwise_reload
    for module in list(sys.modules.values()):
        if vars(module).get("initialize_layerwise_reload") is start:
            vars(module)["initialize_layerwise_reload"] = lambda *arguments: calls.append(arguments)
    return lambda: len(calls)


def prepare_npu() -> None:
    """Provide what a build adds to vllm-ascend, and replace two calls that would not find it."""
    import vllm_ascend_parts
    from vllm.model_executor.models import registry

    vllm_ascend_parts.prepare_worker()
    registry._run_in_subprocess = lambda function: function()  # where the stand-ins would be missing
    module = importlib.import_module("vllm_ascend.worker.worker")
    module.register_device_print = lambda: None  # an operator of vllm-ascend's own, in 0.30


if __name__ == "__main__":
    if sys.argv[1] == "npu":
        prepare_npu()
    print(json.dumps(observe(sys.argv[1], Path(sys.argv[2]))))
