"""What our adapters and the worker extension do in the worker classes of releases, seen by their own calls.

Run by test_weight_transfer.py as ``transfer_probe.py TREE...``; each tree has a few files of one release of
vLLM, of vllm-ascend or of both, as released. What they import besides is stood in for. Prints what it
observed as JSON, by tree. ascend_probe.py calls ``observe`` where all of vLLM is there.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch

from harness.upstream.fake_npu import Anything

SHAPES = {"norm.weight": (6,), "proj.weight": (4, 6)}
EXTENSION = "vime_runtime.rollout.worker.WorkerExtension"


def model() -> torch.nn.Module:
    """A model in which vLLM's names are those of the checkpoint."""
    made = torch.nn.Module()
    for name, shape in SHAPES.items():
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(torch.zeros(shape), requires_grad=False)
        made.add_module(name.partition(".")[0], module)
    return made


def weights(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def buckets(tensors: dict[str, torch.Tensor]) -> Iterator[Any]:
    from vime_runtime.weight_sync.buckets import BucketExporter

    exporter = BucketExporter(lambda: iter(tensors.items()), bucket_bytes=100)
    while (message := exporter.next()) is not None:
        yield message


def failure(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return ""


class Engine:
    """What ``rollout/engine.py`` does: it calls methods of the extension in the worker."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def update(self, tensors: dict[str, torch.Tensor]) -> bool:
        """Carry out a whole update; whether the model then has these weights."""
        self.worker.begin_buckets()
        self.send(tensors)
        self.worker.end_buckets()
        return self.has(tensors)

    def send(self, tensors: dict[str, torch.Tensor]) -> None:
        for bucket in buckets(tensors):
            self.worker.take_bucket(bucket)

    def has(self, tensors: dict[str, torch.Tensor]) -> bool:
        found = dict(self.worker.get_model().named_parameters())
        return all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def observe(worker_class: type, version: str) -> dict[str, Any]:
    """Send weights through one worker, well and badly."""
    from vime_runtime.weight_sync import generations

    generations.register()
    worker = loaded(worker_class)
    engine = Engine(worker)
    calls, reloads = record(worker), watch_reload()
    transfer = worker.weight_transfer_engine
    seen: dict[str, Any] = {
        "vllm": version,
        "generation": generations.of_vllm().name,
        "route": type(generations.route(worker)).__module__.rpartition(".")[2],
        "engine": transfer and type(transfer).__module__.rpartition(".")[2],
        "updated": engine.update(weights(1)),
    }
    seen["calls"] = list(calls)
    seen["again"] = engine.update(weights(2))
    worker.begin_buckets()
    engine.send({"norm.weight": weights(3)["norm.weight"]})
    seen["incomplete"] = failure(worker.end_buckets)
    engine.send({"proj.weight": weights(3)["proj.weight"]})
    worker.end_buckets()
    seen["completed"] = engine.has(weights(3))
    worker.begin_buckets()
    seen["misshapen"] = failure(lambda: engine.send({"norm.weight": torch.zeros(7)}))
    seen["after a failure"] = engine.update(weights(4))
    worker.begin_buckets()
    worker.begin_buckets()  # the update before it was left open
    engine.send(weights(5))
    worker.end_buckets()
    seen["after one left open"] = engine.has(weights(5))
    seen["reloads"] = reloads()
    worker.shutdown()
    return seen


def loaded(worker_class: type) -> Any:
    """A worker with our extension that has loaded its model."""
    mix_in(worker_class)
    worker = worker_class.__new__(worker_class)
    made = model()
    worker.device = torch.device("cpu")
    worker.rank = worker.local_rank = 0
    worker.weight_transfer_engine, worker._weight_update_active = None, False
    worker.profiler = None
    worker.model_config = SimpleNamespace(enable_sleep_mode=False, enable_cumem_allocator=False)
    worker.vllm_config = SimpleNamespace(
        model_config=worker.model_config,
        parallel_config=SimpleNamespace(world_size=1, data_parallel_index=0),
        weight_transfer_config=SimpleNamespace(backend="vime-buckets"),
    )
    worker.model_runner = SimpleNamespace(
        model=made,
        get_model=lambda: made,
        load_model=lambda **options: None,
        reset_lora_state=lambda: None,
        shutdown=lambda: None,
        eep_eplb_suppressed=False,
    )
    worker.elastic_ep_executor = MagicMock()
    worker.load_model()
    return worker


def mix_in(worker_class: type) -> None:
    """What vLLM's ``WorkerWrapperBase.init_worker`` does with a worker extension, in all these releases."""
    module, _, name = EXTENSION.rpartition(".")
    extension = getattr(importlib.import_module(module), name)
    if extension not in worker_class.__bases__:
        for attribute in dir(extension):
            assert attribute.startswith("__") or not hasattr(worker_class, attribute), attribute
        worker_class.__bases__ = (*worker_class.__bases__, extension)


def record(worker: Any) -> list[str]:
    """What the worker's own methods for weights are called with from now on."""
    calls: list[str] = []
    for name in ("start_weight_update", "update_weights", "finish_weight_update"):
        method = getattr(worker, name, None)
        if method is None:
            continue

        def recording(*args: Any, _name: str = name, _method: Any = method, **kwargs: Any) -> Any:
            calls.append(f"{_name}({', '.join(f'{key}={value}' for key, value in kwargs.items())})")
            return _method(*args, **kwargs)

        recording.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
        setattr(worker, name, recording)
    return calls


def watch_reload() -> Callable[[], int]:
    """How often vLLM's layerwise reload is begun or ended from now on."""
    reload = importlib.import_module("vllm.model_executor.model_loader.reload")
    names = ("initialize_layerwise_reload", "finalize_layerwise_reload")
    for name in names:
        setattr(reload, name, MagicMock())
    return lambda: sum(getattr(reload, name).call_count for name in names)


# --- a few files of a release, and stand-ins for all that they import --------------------------------


class Around(MetaPathFinder, Loader):
    """Finds the modules of these packages: in the tree, or else one in which every name is there."""

    PACKAGES = ("vllm", "vllm_ascend", "torch_npu", "acl", "pybase64")
    CONTENTS: dict[str, dict[str, Any]] = {  # noqa: RUF012
        "vllm.v1.worker.worker_base": {"WorkerBase": type("WorkerBase", (), {"shutdown": lambda self: None})},
        "vllm.distributed.ec_transfer.ec_transfer_state": {"ensure_ec_transfer_shutdown": None},
        "vllm.distributed.kv_transfer": {"ensure_kv_transfer_shutdown": None},
        "vllm.model_executor.layers.vocab_parallel_embedding": {
            "VocabParallelEmbedding": type("VocabParallelEmbedding", (), {})
        },
        "vllm.model_executor.layers.linear": {
            name: type(name, (), {})
            for name in (
                "ColumnParallelLinear",
                "MergedColumnParallelLinear",
                "QKVParallelLinear",
                "RowParallelLinear",
            )
        },
        "vllm_ascend.envs": {"VLLM_ASCEND_ENABLE_NZ": 0},
        "vllm_ascend.ascend_config": {"get_ascend_config": lambda: SimpleNamespace(weight_nz_mode=0)},
    }

    def __init__(self, tree: Path, vllm: str, ascend: bool) -> None:
        self.tree = tree
        self.vllm = vllm
        self.platform = "npu" if ascend else "cpu"

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self.PACKAGES:
            return None
        place = self.tree.joinpath(*name.split("."))
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return importlib.util.spec_from_file_location(name, file)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self.CONTENTS.get(module.__name__, {}))
        match module.__name__:
            case "vllm":
                module.__version__ = self.vllm  # type: ignore[attr-defined]
            case "vllm_ascend.utils":
                module.vllm_version_is = lambda version: version == self.vllm  # type: ignore[attr-defined]
            case "vllm.platforms":
                names = ("cpu", "cuda", "cuda_alike", "rocm", "xpu")
                # With "cpu" a worker of vLLM looks for no allocator of a device.
                none = {f"is_{name}": lambda name=name: name == self.platform for name in names}
                module.current_platform = SimpleNamespace(  # type: ignore[attr-defined]
                    device_type=self.platform, device_name=self.platform, **none
                )
            case "vllm.model_executor.layers.rotary_embedding.common":
                module.ApplyRotaryEmb = type(  # type: ignore[attr-defined]
                    "ApplyRotaryEmb", (), {"__init__": lambda self: None}
                )


def observe_tree(tree: Path) -> dict[str, Any]:
    """Observe the worker of vllm-ascend in a tree where it has one, else that of vLLM."""
    version = (tree / "VERSION").read_text()
    path = next(
        path
        for path in ("vllm_ascend/worker/worker.py", "vllm/v1/worker/gpu_worker.py")
        if (tree / path).is_file()
    )
    finder = Around(tree, version, path.startswith("vllm_ascend"))
    sys.meta_path.insert(0, finder)
    try:
        worker = importlib.import_module(".".join(Path(path).with_suffix("").parts))
        return observe(getattr(worker, "NPUWorker", None) or worker.Worker, version)
    finally:
        sys.meta_path.remove(finder)
        for name in list(sys.modules):
            if name.partition(".")[0] in (*Around.PACKAGES, "vime_runtime"):
                del sys.modules[name]


def main(trees: Sequence[str]) -> None:
    torch.npu = sys.modules["torch.npu"] = Anything("torch.npu")  # type: ignore[attr-defined]
    torch.accelerator.synchronize = lambda *arguments: None
    seen = {}
    for tree in trees:
        try:
            seen[Path(tree).name] = observe_tree(Path(tree))
        except Exception as e:
            seen[Path(tree).name] = {"error": f"{type(e).__name__}: {e}"}
            if os.environ.get("PROBE_DEBUG"):
                raise
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1:])
